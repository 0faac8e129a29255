"""The converter: strict types, all problems at once, and a way back to plain dicts."""

import math
import tomllib
from typing import Any, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specs.tables.data import Data
from specs.tables.evaluate import Evaluate
from specs.tables.experiment import Experiment, Lora, Model, Train
from specs.tables.probe import Probe
from specs.tables.target import Target
from specs.toml.convert import structure, unstructure
from specs.toml.describe import members, split_annotated, value
from specs.toml.known_keys import field_types, table_class, tables, unknown_key

MINIMAL: dict[str, Any] = {"name": "demo", "model": {"id": "m"}, "data": {"source": "s"}}


def problems_of(raw: Any, cls: type, at: str = "") -> dict[str, str]:
    obj, problems = structure(raw, cls, at)
    assert (obj is None) == bool(problems)
    return {problem.key: f"{problem.message}|{problem.hint}" for problem in problems}


@pytest.mark.parametrize(
    ("cls", "raw", "key", "message"),
    [
        (Train, {"steps": "8"}, "train.steps", 'expected an integer >= 0, found the string "8"|'),
        (Train, {"batch_size": 8.0}, "train.batch_size", "expected an integer >= 1, found the number 8.0|"),
        (Train, {"batch_size": True}, "train.batch_size", "expected an integer >= 1, found true|"),
        (Train, {"batch_size": 0}, "train.batch_size", "expected an integer >= 1, found the integer 0|"),
        (Train, {"lr": True}, "train.lr", "expected a number > 0, found true|"),
        (Train, {"lr": "1e-4"}, "train.lr", 'expected a number > 0, found the string "1e-4"|'),
        (Train, {"lr": math.nan}, "train.lr", "expected a number > 0, found the number nan|"),
        (Train, {"lr": math.inf}, "train.lr", "expected a number > 0, found the number inf|"),
        (Train, {"lr": 10**400}, "train.lr", f"expected a number > 0, found the integer 1{'0' * 59}…|"),
        (Train, {"resume": 1}, "train.resume", "expected true or false, found the integer 1|"),
        (Train, {"resume": "false"}, "train.resume", 'expected true or false, found the string "false"|'),
        (
            Train,
            {"schedule": "cosin"},
            "train.schedule",
            'expected "constant", "linear" or "cosine", found the string "cosin"|cosine',
        ),
        (
            Train,
            {"report_to": "wandb"},
            "train.report_to",
            'expected a list of strings, found the string "wandb"|',
        ),
        (Train, {"report_to": ["a", 1]}, "train.report_to[1]", "expected a string, found the integer 1|"),
        (Train, [], "train", "expected a table, found an empty list|"),
        (Target, {"filler": ""}, "train.filler", 'expected a non-empty string, found the string ""|'),
        (
            Evaluate,
            {"neutral_text": ""},
            "train.neutral_text",
            'expected a non-empty string, found the string ""|',
        ),
        (Evaluate, {"tasks": [""]}, "train.tasks[0]", 'expected a non-empty string, found the string ""|'),
        (
            Evaluate,
            {"tasks": "arc"},
            "train.tasks",
            'expected a list of non-empty strings, found the string "arc"|',
        ),
        (
            Lora,
            {"target_modules": 3},
            "train.target_modules",
            "expected a string or a list of strings, found the integer 3|",
        ),
        (
            Data,
            {"source": "s", "holdout": 1},
            "train.holdout",
            "expected a number > 0 and < 1, found the integer 1|",
        ),
        (
            Experiment,
            {**MINIMAL, "name": "demo\n"},
            "train.name",
            "expected a string of letters, digits, dots, hyphens and underscores, a letter or digit first, "
            '100 at the most, found the string "demo\\n"|',
        ),
        (
            Data,
            {"source": 7},
            "train.source",
            "expected a string or a non-empty list of strings, found the integer 7|",
        ),
        (Data, {}, "train.source", "missing; this key is required|"),
        (
            Evaluate,
            {"labels": ["1"]},
            "train.labels",
            "expected a list of at least 2 strings, found a list of 1|",
        ),
        (
            Probe,
            {"layers": "al"},
            "train.layers",
            'expected "all" or a list of integers, found the string "al"|all',
        ),
        (Probe, {"layers": [0, "x"]}, "train.layers[1]", 'expected an integer, found the string "x"|'),
        (
            Probe,
            {"positions": ["prompt_en"]},
            "train.positions[0]",
            'expected "prompt_end", "label", "completion_end", "explanation" or '
            '"prompt", an integer or a table, found the string "prompt_en"'
            "|prompt_end",
        ),
        (
            Probe,
            {"top_k": 1025},
            "train.top_k",
            "expected an integer >= 0 and <= 1024, found the integer 1025|",
        ),
        (Probe, {"examples": None}, "train.examples", "expected an integer >= 1, found a NoneType|"),
        (Train, {"lrr": 1}, "train.lrr", "unknown key|lr"),
        (Lora, {"lr": 1}, "train.lr", "unknown key; `lr` belongs to [train] or [probe.tuned]|"),
        (Train, {"seeds": [1]}, "train.seeds", "unknown key; `seeds` belongs to the top level|"),
        (Data, {"source": "s", "columns": {"contxt": "c"}}, "train.columns.contxt", "unknown key|context"),
    ],
)
def test_one_mistake(cls: type, raw: Any, key: str, message: str) -> None:
    assert problems_of(raw, cls, "train") == {key: message}


def test_all_mistakes_are_reported() -> None:
    raw = {
        "name": "a b",
        "model": {"dtype": "float8", "idd": "m"},
        "data": {"source": "s", "columns": {"label": 1}, "test": 0},
        "train": {"lr": 0, "lora": 1},
        "contrasts": [{"factor": "x", "baseline": 1}, {"factor": 1, "baseline": 1}],
    }
    assert set(problems_of(raw, Experiment)) == {
        "name", "model.id", "model.dtype", "model.idd", "data.columns.label", "data.test",
        "train.lr", "train.lora", "contrasts[1].factor",
    }  # fmt: skip


@pytest.mark.parametrize(("cls", "key", "hint"), [
    (Experiment, "seed", "seeds"), (Evaluate, "label", "labels"), (Data, "sources", "source"),
])  # fmt: skip
def test_one_letter_s_is_what_is_meant(cls: type, key: str, hint: str) -> None:
    assert unknown_key(cls, (key,)).hint == hint


def test_an_unknown_key_without_neighbours_lists_what_there_is() -> None:
    _, (problem,) = structure({"id": "m", "qqqq": 1}, Model)
    assert str(problem).startswith("qqqq: unknown key; expected one of id, gguf_file, revision,")


def test_values_keep_their_types() -> None:
    train, _ = structure({"lr": 1, "steps": 5}, Train, "train")
    assert train is not None
    assert type(train.lr) is float
    assert type(train.steps) is int
    lora, _ = structure({"target_modules": ["q", "v"]}, Lora, "lora")
    assert lora is not None
    assert lora.target_modules == ["q", "v"]
    probe, _ = structure({"positions": ["prompt_end", -2], "layers": [0, -1]}, Probe, "probe")
    assert probe is not None
    assert (probe.positions, probe.layers) == (["prompt_end", -2], [0, -1])


def test_round_trip() -> None:
    experiment, _ = structure({**MINIMAL, "probe": {"examples": 3}}, Experiment)
    plain = unstructure(experiment)
    assert "steps" not in plain["train"]  # None is a key left out
    assert structure(plain, Experiment) == (experiment, [])


LEAVES = [
    (cls, name, type_)
    for table, cls in tables().items()
    if table not in ("", "rules")
    for name, type_ in field_types(cls).items()
    if table_class(type_) is None
]
# One value of every kind that TOML knows; a key takes only the kinds that its type names.
KINDS: dict[type, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(),
    float: st.floats(),
    str: st.text(max_size=5),
    dict: st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
}


def kinds(type_: Any) -> set[type]:
    bare, _ = split_annotated(type_)
    if len(members(bare)) > 1 or members(bare) != [bare]:
        return set().union(*(kinds(member) for member in members(bare)))
    if bare in KINDS:
        return {bare, int} if bare is float else {bare}
    if get_origin(bare) is dict:
        return {dict}
    choices = getattr(bare, "__args__", ())
    return {type(choice) for choice in choices if isinstance(choice, str)}


@given(st.data())
def test_wrong_kinds_never_pass(data: st.DataObject) -> None:
    cls, name, type_ = data.draw(st.sampled_from(LEAVES))
    wrong = data.draw(st.sampled_from([kind for kind in KINDS if kind not in kinds(type_)]))
    raw = data.draw(KINDS[wrong])
    _, problems = structure({name: raw}, cls, "t")
    (problem,) = [problem for problem in problems if problem.key == f"t.{name}"]
    assert problem.message.startswith("expected ")
    assert ", found " in problem.message


VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(VALUES)
def test_a_value_is_spelled_as_toml_reads_it(drawn: Any) -> None:
    spelled = value(drawn)
    assert "\n" not in spelled
    read = tomllib.loads(f"x = {spelled}")["x"]
    assert read == drawn and repr(read) == repr(drawn)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("label+other", "label+other_explanation"),
        ("label+contradicting", "label+contradicting_explanation"),
        ("label+repeated", "label+repeated_label"),
        ("label+vocabulary", "label+vocabulary_tokens"),
        ("label+Random", "label+random_tokens"),
        ("label+fillr", "label+filler"),
        ("label+explanations", "label+explanation"),
        ("labl", "label"),
    ],
)
def test_the_nearest_content_is_told_by_its_own_words(written: str, meant: str) -> None:
    ((_, message),) = problems_of({"content": written}, Target, "target").items()
    assert message.endswith(f"|{meant}")
