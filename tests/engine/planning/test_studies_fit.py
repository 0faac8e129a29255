"""The ready studies fit the GPUs that they are meant for, by the plan's own estimate."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from engine.api import choose
from engine.planning.devices import DEVICES
from engine.planning.estimate import stage_costs
from engine.planning.memory_fit import fit_warnings
from engine.planning.plan import make_plan
from specs import load_spec, resolve

ROOT = Path(__file__).parents[3] / "specs" / "studies"
FULL = sorted(file.stem for file in ROOT.glob("*.toml") if "small" not in file.stem and file.stem != "demo")
# By the type of the weights, the GPUs of the least memory that the studies are to fit.
CARDS = {
    "none": [name for name, device in DEVICES.items() if device.memory == 80],
    "nf4": [name for name, device in DEVICES.items() if device.memory == 24],
}


@pytest.fixture(autouse=True)
def _empty_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def test_there_are_such_studies_and_cards() -> None:
    assert len(FULL) > 14 and {"h100", "a100"} <= {*CARDS["none"]} and {"rtx-4090", "l4"} <= {*CARDS["nf4"]}


@pytest.mark.parametrize("quantization", CARDS)
@pytest.mark.parametrize("study", FULL)
def test_a_study_fits(study: str, quantization: str, tmp_path: Path) -> None:
    """80 GB with weights in bfloat16, 24 GB in nf4; nothing is recomputed for it."""
    options = [f"model.quantization={quantization}", f"executor.device={CARDS[quantization][0]}", "seeds=[0]"]
    plan = make_plan(resolve(load_spec(ROOT / f"{study}.toml", options)), tmp_path / "store")
    if study == "causality":  # hundreds of changes to each cell, alike in all sets
        plan = evolve(plan, cells=choose(plan, {"set": "coqa"}))
    room = DEVICES[CARDS[quantization][0]].memory * 1e9
    costs = [cost for _, _, cost in stage_costs(plan)]
    assert costs and all(cost is not None and 0 < cost.memory <= 0.95 * room for cost in costs)
    assert not [*fit_warnings(plan)]
    assert {cost.passes.checkpointing for cost in costs if cost and cost.passes} == {False}
