"""`[annotate]`: every mistake is named with its place, and no stage key hangs on the table."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from annotate_spec import write_spec
from commands import engine
from facts import told
from jsonschema import Draft202012Validator

from specs import SpecError, json_schema, load_spec, resolve

URL = "http://localhost:8000/v1"
AGAIN = '[[annotate.annotators]]\nname = "one"\nmodel = "n"'
EXAMPLE = 'examples = [{ context = "c", response = "r", rating = 9, explanation = "e" }]'


def problems(spec: Path) -> list[str]:
    with pytest.raises(SpecError) as caught:
        resolve(load_spec(spec))
    return [str(problem).replace(f"{spec}:", "") for problem in caught.value.problems]


def test_the_schema_takes_what_the_loader_takes(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, URL, annotator="requests_per_minute = 60\nparameters = { top_p = 0.9 }")
    resolve(load_spec(spec))
    raw = tomllib.loads(spec.read_text())
    validator = Draft202012Validator(json_schema())
    validator.validate(raw)
    for change in ({"merge": "mode"}, {"dimensions": []}, {"annotators": [{"name": "a"}]}, {"outputs": "o"}):
        assert not validator.is_valid({**raw, "annotate": {**raw["annotate"], **change}})
    del raw["annotate"]["output"]
    assert not validator.is_valid(raw)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('["naturalness"]', '["d", "d"]', 'annotate.dimensions[1] … "d"'),
        ('["naturalness"]', '["group"]', "annotate.dimensions[0] … `group` … column"),
        ('"rated.jsonl"', '"o"\nlow = 5', "annotate.high … low = 5 … 5"),
        ('"rated.jsonl"', '"o"\nmerge = "best"', 'annotate.merge … `golden` … "best"'),
        ('"rated.jsonl"', '"o"\nmerger = "onn"', '"onn" … "one"'),
        ('"rated.jsonl"', '"o"\nmin_answers = 2', "annotate.min_answers … 1"),
        ('"rated.jsonl"', '"o"\ndefinitions.x = "y"', 'annotate.definitions: unknown dimension "x"'),
        ('"rated.jsonl"', '"o"\nmerge_template = "{rating}"', "{explanations} … none"),
        (f'"{URL}"', '"localhost:8000"', "annotators[0].endpoint … URL … http"),
        (f'"{URL}"', '"https://me:pw@host/v1"', "annotators[0].endpoint … URL … user"),
        (f'endpoint = "{URL}"', "temperature = 1.0", "temperature … `endpoint`"),
        ('model = "small"', 'model = "m"\nkey_env = "sk-12ab"', "key_env"),
        ('model = "small"', 'model = "m"\nparameters.n = 2', "parameters.n … `n`"),
        ('model = "small"', 'model = "m"\nparameters.x = nan', "parameters … JSON"),
        ('model = "small"', f'model = "m"\n{AGAIN}', 'annotators[1] … "one" … twice'),
        ('"plain"', '"plain"\nhigh = 1', "strategies[0].high … low = 1 … 1"),
        ('"plain"', '"plain"\ntemplate = "{context} {response} {reply}"', "unknown field {reply}"),
        ('"plain"', '"plain"\ntemplate = "{context}"', "template … {response} … none"),
        ('"plain"', '"plain"\ntemplate = "{context} {"', "not a template: "),
        ('"plain"', f'"plain"\n{EXAMPLE}', "examples[0].rating … from 1 to 5 … 9"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(tmp_path: Path, old: str, new: str, said: str) -> None:
    spec = write_spec(tmp_path, URL)
    text = spec.read_text()
    assert old in text
    spec.write_text(text.replace(old, new, 1))
    (found,) = problems(spec)
    assert told(found, said) and found[0].isdigit()
    assert "sk-12ab" not in found and "pw@" not in found


def test_no_stage_key_hangs_on_the_table(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, URL)

    def matrix() -> object:
        return json.loads(engine("plan", spec, "--cells", "--json").output)["matrix"]

    before = matrix()
    spec.write_text(spec.read_text().replace('"naturalness"', '"on-topic"'))
    changed = matrix()
    spec.write_text(spec.read_text().partition("[annotate]")[0])
    assert before == changed == matrix()


def test_a_spec_that_extends_another_may_change_one_key(tmp_path: Path) -> None:
    write_spec(tmp_path, URL)
    child = tmp_path / "child.toml"
    child.write_text('extends = "spec.toml"\nannotate.merge = "median"\n')
    experiment = load_spec(child).experiment
    assert experiment.annotate is not None and experiment.annotate.merge == "median"
    Draft202012Validator(json_schema()).validate(tomllib.loads(child.read_text()))
