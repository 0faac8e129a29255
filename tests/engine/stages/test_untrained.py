"""The untrained model and guesses as references: evaluated once, cached, planned, shown."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import engine
from sklearn.metrics import log_loss
from small_study import small_spec

from engine.planning.plan import make_plan
from engine.stages.metrics import label_metrics
from specs import load_spec, resolve
from store import Ledger, open_store
from store.analysis import references
from store.analysis.untrained import _most_frequent, _uniform
from store.report.collect import collect


@pytest.fixture
def spec(tmp_path: Path, tiny_model: Path, rated_file: Path) -> Path:
    return small_spec(tmp_path, tiny_model, rated_file)


def keys(spec: Path, *overrides: str) -> list[dict[str, str]]:
    return [cell.keys for cell in make_plan(resolve(load_spec(spec, overrides))).cells]


def test_it_is_evaluated_once_for_all_targets_and_seeds(spec: Path, tmp_path: Path) -> None:
    planned = json.loads(engine("plan", spec, "--json").output)
    assert planned["stages"]["base"] == {"cached": 0, "pending": 1, "failed": 0, "running": 0}
    assert planned["estimate"]["base"]["flops"] > 0
    engine("execute", spec)
    ledger = Ledger(tmp_path / "store")
    assert len(ledger.done("base")) == 1 and len(ledger.done("evaluate")) == len(keys(spec)) == 4
    node = open_store(tmp_path / "store")["small"]
    base = node["base"].to_dataset()
    assert base.sizes["cell"] == 4 and (base["label_logprob"] == base["label_logprob"][0]).all()
    # It is what a cell without training gives that asks for the label.
    engine("execute", spec, "--set", 'name="untrained"', "--set", "train.steps=0")
    other = open_store(tmp_path / "store")["untrained/evaluate"].to_dataset().sel(target="label", seed=0)
    np.testing.assert_allclose(base["label_logprob"][0], other["label_logprob"], rtol=1e-5)
    assert "Nothing to do" in engine("execute", spec).output


def test_no_other_key_hangs_on_it_and_it_can_be_left_out(spec: Path, tmp_path: Path) -> None:
    for own, without in zip(keys(spec), keys(spec, "evaluate.base_model=false"), strict=True):
        assert without == {stage: key for stage, key in own.items() if stage != "base"}
    same = {own["base"] for own in keys(spec, "train.lr=0.5", "lora.r=4", "seeds=[7]")}
    assert same == {own["base"] for own in keys(spec)}
    assert same != {own["base"] for own in keys(spec, 'prompt.system="Rate."')}
    # A study that was run without it lacks this stage alone, and can be read meanwhile.
    engine("execute", spec, "--set", "evaluate.base_model=false")
    assert "base" not in open_store(tmp_path / "store")["small"].children
    planned = json.loads(engine("plan", spec, "--json").output)["stages"]
    assert {stage for stage, states in planned.items() if states["pending"]} == {"base"}
    engine("execute", spec)
    tree = open_store(tmp_path / "store")["small"]
    assert tree["base"].sizes["cell"] == 4
    assert tree["summary"].sizes["cell"] == 4


def test_results_and_report_have_a_row_of_each(spec: Path, tmp_path: Path) -> None:
    shown = " ".join(engine("execute", spec).output.split())
    for name in ("untrained model", "most frequent label", "uniform guess"):
        assert name in shown
    found = references(open_store(tmp_path / "store")["small"])
    assert found["reference"].values.tolist() == ["untrained model", "most frequent label", "uniform guess"]
    report = collect(tmp_path / "store")["experiments"][0]["results"]
    accuracy = next(own for own in report["metrics"] if own["name"] == "accuracy")
    assert accuracy["references"] == pytest.approx(found["accuracy"].values, rel=1e-3)
    node = open_store(tmp_path / "store")["small"]
    assert found["accuracy"].values[0] == pytest.approx(float(node["summary"]["base_accuracy"][0]))


def test_guesses_are_what_they_would_reach() -> None:
    rng = np.random.default_rng(0)
    labels = ["1", "2", "3", "4"]
    gold = rng.choice(labels, 400, p=[0.5, 0.2, 0.2, 0.1])
    own = _most_frequent(gold, labels)
    assert {name: own[name] for name in ("accuracy", "macro_f1", "mae")} == pytest.approx(
        {n: v for n, v in label_metrics(gold, ["1"] * 400, labels).items() if n != "qwk"}
    )
    shares = np.array([np.mean(gold == label) for label in labels])
    assert own["nll"] == pytest.approx(log_loss(gold, np.tile(shares, (400, 1)), labels=labels))
    many = [label_metrics(gold, rng.choice(labels, 400), labels) for _ in range(300)]
    for name, value in _uniform(gold, labels).items():
        if name in many[0]:
            assert value == pytest.approx(np.mean([one[name] for one in many]), abs=0.01)
    assert "mae" not in _uniform(np.array(["a", "b"]), ["a", "b"])


@pytest.mark.parametrize("scoring", ["constrained", "generation"])
def test_there_are_references_however_labels_are_found(spec: Path, tmp_path: Path, scoring: str) -> None:
    kind = {"constrained": "constrained_", "generation": "generated_"}[scoring]
    more = ("--set", f'evaluate.scoring=["{scoring}"]', "--set", "evaluate.max_new_tokens=2")
    output = engine("execute", spec, *more, "--only", "target=label").output
    assert "untrained model" in output and "most frequent label" in output
    found = references(open_store(tmp_path / "store")["small"])
    accuracy = found[f"{kind}accuracy"].to_series()
    assert 0 < accuracy["uniform guess"] < 1 and accuracy["most frequent label"] > 0
    assert np.isfinite(accuracy["untrained model"])
    assert "accuracy" not in found
