"""What a key is told that other trainers have: its name here, or why there is none."""

import re
import tomllib

import pytest
from trainer_keys import AXOLOTL, LLAMA_FACTORY, LORA_CONFIG, TRAINING_ARGUMENTS, TRL

from specs.tables.experiment import Experiment, Train
from specs.toml.convert import structure
from specs.toml.keys import split
from specs.toml.known_keys import field_types, is_key, tables, unknown_key
from specs.toml.other_names import MEASURED_IN, NOT_HERE, OTHER_NAMES


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_the_names_of_other_trainers_lead_to_ours(name: str) -> None:
    key, equals, value = OTHER_NAMES[name].partition(" = ")
    assert is_key(split(key)), key
    if equals:
        table, _, last = key.rpartition(".")
        _, wrong = structure(tomllib.loads(f"{last} = {value}"), tables()[table])
        assert not [problem for problem in wrong if problem.key == last]
    table, dot, alone = name.rpartition(".")
    if dot:
        (cls,) = {own for name, own in tables().items() if name.rpartition(".")[2] == table}
        places = {(table, alone) if table else (alone,): cls}
    else:
        assert not any(name in field_types(cls) for cls in tables().values())  # which would be its own home
        places = {
            ("train", name): Train,
            (name,): Experiment,
            ("train", name.replace("_", "-").upper()): Train,
        }
    for path, cls in places.items():
        assert f"here it is called `{OTHER_NAMES[name]}`" in unknown_key(cls, path).message


def test_what_the_key_here_takes_is_said_of_names_that_there_are() -> None:
    assert MEASURED_IN.keys() <= OTHER_NAMES.keys()
    message = unknown_key(Train, ("train", "warmup_steps")).message
    assert message.endswith("`train.warmup`, a share of the steps")


@pytest.mark.parametrize("name", [
    name
    for names in (TRAINING_ARGUMENTS, LORA_CONFIG, TRL, LLAMA_FACTORY, AXOLOTL)
    for name in names.split()
    if not any(name in field_types(cls) for cls in tables().values())
])  # fmt: skip
def test_every_key_of_other_trainers_is_answered(name: str) -> None:
    """By the name here, or why there is none; neither a list of keys nor one that is spelled alike."""
    for path, cls in (((name,), Experiment), (("train", name), Train)):
        problem = unknown_key(cls, path)
        said = problem.message.removeprefix("unknown key")
        assert said.startswith("; ") or problem.hint == f"{name}s", str(problem)
        assert problem.choices == "" and (said or problem.hint)


@pytest.mark.parametrize("name", NOT_HERE.values())
def test_reasons_do_not_hide_keys_that_there_are(name: str) -> None:
    reasons = [name for name in name.split() if not name.endswith("*")]
    assert not {*reasons} & OTHER_NAMES.keys()
    assert not {*reasons} & {key for cls in tables().values() for key in field_types(cls)}


@pytest.mark.parametrize("reason", NOT_HERE)
def test_reasons_name_keys_that_there_are(reason: str) -> None:
    for key in re.findall(r"`([a-z_.]+)`", reason):
        assert is_key(split(key)), key


@pytest.mark.parametrize(("cls", "key", "said"), [
    (Train, "LR", 'did you mean "lr"?'), (Experiment, "LR", "`lr` belongs to [train] or [probe.tuned]"),
    (Train, "batch-size", 'did you mean "batch_size"?'), (Experiment, "learning-rate", "`train.lr`"),
])  # fmt: skip
def test_case_and_hyphens_are_no_other_key(cls: type, key: str, said: str) -> None:
    assert said in str(unknown_key(cls, (key,)))
