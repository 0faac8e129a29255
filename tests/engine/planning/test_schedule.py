"""The plan knows a training's steps, and warns where its schedule cannot be meant."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from commands import engine
from facts import told
from trainings import load, many, train

from engine.planning.schedule import training_steps
from specs.tables.experiment import Train


def warnings(spec: Path, *options: str) -> list[str]:
    found: list[str] = json.loads(engine("plan", spec, "--json", *options).output)["warnings"]
    text = " ".join(engine("plan", spec, *options).output.split())
    assert all(" ".join(warning.split()) in text for warning in found)
    return found


@pytest.mark.parametrize(
    "settings",
    [
        Train(epochs=1, batch_size=2), Train(epochs=2.5, batch_size=2, accumulation=2),
        Train(epochs=0.3, batch_size=1), Train(steps=4, epochs=9, batch_size=2),
    ],
)  # fmt: skip
def test_steps_are_those_that_a_training_has(
    tiny_model: Path, tokenizer: Any, tmp_path: Path, settings: Train
) -> None:
    trained = train(load(tiny_model), tokenizer, tmp_path, many(7), settings=settings)
    assert training_steps(settings, 7) == trained.summary["train_steps"]
    # The first steps are those of the warm-up; the first of all is at the rate 0.
    rates = trained.curves["learning_rate"]
    assert (rates == 0).sum() == min(1, math.ceil(len(rates) * settings.warmup))


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ("steps = 1", "1 step … warm-up … rate 0"),
        (
            "epochs = 1.0\naccumulation = 2",
            "1 step … warm-up",
        ),  # eight examples
        ("steps = 4\nwarmup = 0.9", "4 steps … 0 to 0.00015"),
    ],
)
def test_a_warm_up_over_all_steps_is_warned_of(write_spec, train: str, said: str) -> None:
    (warning,) = warnings(write_spec(train=train))
    assert warning.startswith("train.warmup: found") and told(warning, said)


@pytest.mark.parametrize(
    "train", ["steps = 1\nwarmup = 0.0", "steps = 2", "steps = 0", "steps = 4\nwarmup = 0.75"]
)
def test_other_warm_ups_are_not(write_spec, train: str) -> None:
    assert not [found for found in warnings(write_spec(train=train)) if found.startswith("train.")]


def test_early_stopping_that_comes_too_late_is_warned_of(write_spec) -> None:
    spec = write_spec(train="steps = 20\nearly_stopping = 2")
    (warning,) = warnings(spec)
    assert told(warning, "2", "20 steps", "1 time", "train.validate_every = 50")
    assert warnings(spec, "--set", "train.validate_every=5") == []
    (warning,) = warnings(spec, "--set", "train.validate_every=8")
    assert "validated 3 times" in warning


def test_examples_are_counted_once_the_data_are_there(write_spec) -> None:
    spec = write_spec(train="epochs = 1.0")
    spec.write_text(spec.read_text().replace("train = 8\n", "").replace("batch_size = 4", "batch_size = 400"))
    assert warnings(spec) == []
    engine("execute", spec, "--only", "target=label", "--only", "seed=0")
    (warning,) = warnings(spec)
    assert told(warning, "1 step")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("train.steps=1", "probe.at=[0,5000]"), ["probe.at[1] … 5000 … 1 step"]),
        (("train.steps=3", "probe.at=[3,4,9]"), ["probe.at[1] … 4 … 3 steps", "probe.at[2] … 9 … 3 steps"]),
        (("train.steps=3", "probe.at=[0,0.5,1.0]"), []),
        (("train.steps=3", "probe.at=[4]", "probe.enabled=false"), []),
        (("train.tokens=500", "probe.at=[4]"), []),
    ],
)
def test_steps_behind_the_end_of_a_training_are_warned_of(
    write_spec, options: tuple[str, ...], said: list[str]
) -> None:
    spec = write_spec(train="warmup = 0.0")
    found = warnings(spec, *(part for option in options for part in ("--set", option)))
    found = [warning for warning in found if "final adapter" in warning]
    assert len(found) == len(said) and all(map(told, found, said))


def test_a_level_that_names_a_later_step_is_named(write_spec) -> None:
    spec = write_spec("[factors.times.levels]\nfew = { probe.at = [1] }\nmany = { probe.at = [1, 7] }\n")
    (warning,) = warnings(spec, "--set", "train.steps=2", "--set", "train.warmup=0")
    assert told(warning, "factors.times.levels.many", "probe.at[1]", "7", "2 steps")
