"""`[annotate]`: every mistake is named with its place, and no stage key hangs on the table."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from annotate_spec import write_spec
from commands import engine
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
        ('["naturalness"]', '["d", "d"]', 'annotate.dimensions[1]: "d" is listed twice'),
        ('["naturalness"]', '["group"]', "annotate.dimensions[0]: `group` is a column of the output"),
        ('"rated.jsonl"', '"o"\nlow = 5', "annotate.high: expected more than low = 5, found 5"),
        ('"rated.jsonl"', '"o"\nmerge = "best"', 'annotate.merge: expected a `golden` set with "best"'),
        ('"rated.jsonl"', '"o"\nmerger = "onn"', 'unknown annotator "onn"; expected "one"; did you mean'),
        ('"rated.jsonl"', '"o"\nmin_answers = 2', "annotate.min_answers: expected at most 1"),
        ('"rated.jsonl"', '"o"\ndefinitions.x = "y"', 'annotate.definitions: unknown dimension "x"'),
        ('"rated.jsonl"', '"o"\nmerge_template = "{rating}"', "the field {explanations}, found none"),
        (f'"{URL}"', '"localhost:8000"', "annotators[0].endpoint: expected a URL as in http"),
        (f'"{URL}"', '"https://me:pw@host/v1"', "annotators[0].endpoint: expected a URL without user"),
        (f'endpoint = "{URL}"', "temperature = 1.0", "temperature: expected only beside an `endpoint`"),
        ('model = "small"', 'model = "m"\nkey_env = "sk-12ab"', "key_env: expected the name of an"),
        ('model = "small"', 'model = "m"\nparameters.n = 2', "parameters.n: `n` is not set here"),
        ('model = "small"', 'model = "m"\nparameters.x = nan', "parameters: expected what JSON can hold"),
        ('model = "small"', f'model = "m"\n{AGAIN}', 'annotators[1]: "one" is listed twice'),
        ('"plain"', '"plain"\nhigh = 1', "strategies[0].high: expected more than low = 1, found 1"),
        ('"plain"', '"plain"\ntemplate = "{context} {response} {reply}"', "unknown field {reply}"),
        ('"plain"', '"plain"\ntemplate = "{context}"', "template: expected the field {response}, found none"),
        ('"plain"', '"plain"\ntemplate = "{context} {"', "not a template: "),
        ('"plain"', f'"plain"\n{EXAMPLE}', "examples[0].rating: expected an integer from 1 to 5, found 9"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(tmp_path: Path, old: str, new: str, said: str) -> None:
    spec = write_spec(tmp_path, URL)
    text = spec.read_text()
    assert old in text
    spec.write_text(text.replace(old, new, 1))
    (found,) = problems(spec)
    assert said in found and found[0].isdigit()
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
