"""`engine status` and `plan --cells`: the cells that are asked for, and a watch that ends by itself."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import command, engine
from facts import told

from engine.cli import status_command
from store import Ledger


@pytest.fixture
def some(write_spec) -> Path:
    """A spec of four cells, of which one is done and one has failed."""
    spec = write_spec()
    engine("execute", spec, "--only", "target=label", "--only", "seed=0")
    matrix = json.loads(engine("plan", spec, "--cells", "--json").output)["matrix"]
    ledger = Ledger(spec.parent / "store")
    failed = matrix[1]
    record = {"error": "it broke", "traceback": "Traceback", "levels": failed["levels"]}
    ledger.fail("train", failed["keys"]["train"], record)
    return spec


def listed(name: str, spec: Path, *arguments: str) -> list[tuple[str, int]]:
    more = ("--cells",) if name == "plan" else ()
    found = json.loads(engine(name, spec, *more, *arguments, "--json").output)
    cells = found["matrix"] if name == "plan" else found["experiments"][0]["cells"]
    return [(cell["levels"]["target"], cell["levels"]["seed"]) for cell in cells]


@pytest.mark.parametrize("name", ["plan", "status"])
def test_cells_are_chosen_by_level_and_state(name: str, some: Path) -> None:
    both = [("label+explanation", 0), ("label+explanation", 1)]
    assert listed(name, some, "--failed") == [("label", 1)]
    assert listed(name, some, "--pending") == both
    assert listed(name, some, "--failed", "--pending") == [("label", 1), *both]
    assert listed(name, some, "--only", "seed=0") == [("label", 0), ("label+explanation", 0)]
    assert listed(name, some, "--only", "seed=0", "--pending") == both[:1]
    text = engine(name, some, "--failed", columns=80).output
    assert told(text, "cells") and told(text, "2", "failed: train")
    code, output = command(name, some, "--only", "sed=0")
    assert code == 2 and told(output, "only sed=0", "seed")


def test_a_watch_ends_when_nothing_is_left(some: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    def sleep(seconds: float) -> None:  # in the meantime somebody runs what is left
        waited.append(seconds)
        engine("execute", some, "--retry-failed")

    monkeypatch.setattr(status_command, "time", SimpleNamespace(sleep=sleep))  # no other thread's
    output = engine("status", some, "--watch").output
    assert waited == [5.0]
    first, second = output.count("small: 4 cells"), output.rfind("small: 4 cells")
    assert first == 2 and told(output[second:], "train", "4", "0", "0", "0")
    assert engine("status", some, "--watch", "2").output and waited == [5.0]
    code, output = command("status", some, "--watch", "--json")
    assert code == 2 and told(output, "--watch", "--json")
