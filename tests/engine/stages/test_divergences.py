"""`probe.against`: divergences between models on the same inputs, held against plain models in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import command, engine
from small_study import small_spec
from torch import Tensor

import engine as ablation_engine
import store
from engine.data import prepare as data
from engine.planning.plan import make_plan
from engine.text.targets import TargetEncoder
from specs import load_spec, resolve
from store.report.probing import layers

AGAINST = """
[probe]
examples = 4
positions = ["prompt_end", "completion_end"]
against = ["base", { target = "label" }]
"""
LABEL, EXPLAINED = "label", "label+explanation"
STEPS = "steps = 6\nlr = 0.05"


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rated_file: Path) -> Path:
    folder = tmp_path_factory.mktemp("against")
    engine("execute", small_spec(folder, tiny_model, rated_file, AGAINST, train=STEPS))
    return folder / "store"


def distributions(model: Any, ids: Tensor, places: list[int]) -> Tensor:
    """Log-probabilities of the logit lens, [layers, positions, V], of a plain model in float64."""
    plain = getattr(model, "base_model", model)
    inner = plain.model.model if hasattr(plain.model, "model") else plain.model
    head = plain.model.lm_head if hasattr(plain.model, "lm_head") else plain.lm_head
    with torch.no_grad():
        *hidden, last = inner(ids, output_hidden_states=True).hidden_states
        states = torch.stack([*map(inner.norm, hidden), last])[:, 0, places]
        return torch.log_softmax(head(states), -1)


def test_divergences_are_those_of_the_plain_models(probed: Path) -> None:
    probe = store.open_store(probed)["small/probe"].to_dataset()
    matrix = resolve(load_spec(probed.parent / "small.toml"))
    plan = make_plan(matrix)
    for cell in plan.cells:
        levels = plan.levels(cell)
        mine = probe.sel(target=levels["target"], seed=levels["seed"]).squeeze()
        assert mine["kl_against"].dims == ("example", "layer", "position", "against")
        assert mine["against"].values.tolist() == ["base", f"target={LABEL}"]
        model, tokenizer = ablation_engine.load_adapter(probed, levels)
        other, _ = ablation_engine.load_adapter(probed, levels | {"target": LABEL})
        writer = TargetEncoder(
            tokenizer=tokenizer,
            prompt=matrix.table("prompt", cell.choice), target=matrix.table("target", cell.choice),
            labels=["1", "2", "3"], dimension="naturalness", seed=levels["seed"],
        )  # fmt: skip
        model, other = model.double(), other.double()
        for number, row in enumerate(data.load(probed / "data" / cell.keys["data"], "test", 4)):
            encoded = writer.encode(row)
            ids = torch.tensor([encoded.prompt + encoded.completion])
            places = [len(encoded.prompt) - 1, ids.shape[1] - 1]
            log_q = distributions(model, ids, places)
            with model.disable_adapter():
                base = distributions(model, ids, places)
            for reference, log_p in enumerate((base, distributions(other, ids, places))):
                mean = torch.logaddexp(log_p, log_q) - np.log(2)
                kl = (log_p.exp() * (log_p - log_q)).sum(-1)
                js = ((log_p.exp() * (log_p - mean)).sum(-1) + (log_q.exp() * (log_q - mean)).sum(-1)) / 2
                found = mine.isel(example=number, against=reference)
                np.testing.assert_allclose(found["kl_against"], kl, rtol=2e-4, atol=2e-6)
                np.testing.assert_allclose(found["js_against"], js, rtol=2e-4, atol=2e-6)
    explained = probe["kl_against"].sel(target=EXPLAINED)
    assert (explained.isel(layer=-1) > 1e-4).all(), "trainings of this rate move the final layer"
    assert (probe["kl_against"].sel(target=LABEL, against=f"target={LABEL}") == 0).all()


def test_mean_divergences_come_with_intervals(probed: Path) -> None:
    tree = store.open_store(probed)["small"]
    result = tree.ablation.divergence_from("base", by="target")
    stored = tree["probe"]["kl_against"].sel(against="base", target=EXPLAINED).mean(("seed", "example"))
    found = result.sel(level=EXPLAINED)
    np.testing.assert_allclose(found["mean"], stored, rtol=1e-6)
    assert (found["low"] <= found["mean"]).all() and (found["mean"] <= found["high"]).all()
    assert (found["low"] >= 0).all()
    assert tree.ablation.divergence_from(f"target={LABEL}", measure="js").sizes["level"] == 2
    with pytest.raises(store.StoreError, match=r"nowhere.*base, target=label"):
        tree.ablation.divergence_from("nowhere")
    with pytest.raises(store.StoreError, match=r"against"):
        store.open_store(probed)["small/evaluate"].ablation.divergence_from("base")


def test_other_statistics_stay_as_they_are_and_nothing_is_trained_twice(
    probed: Path, tmp_path: Path, tiny_model: Path, rated_file: Path
) -> None:
    alone = small_spec(tmp_path, tiny_model, rated_file, AGAINST.replace("against", "# against"), train=STEPS)
    engine("execute", alone)
    ours, plain = (
        store.open_store(folder)["small/probe"].to_dataset() for folder in (probed, tmp_path / "store")
    )
    for name in plain.data_vars:
        np.testing.assert_array_equal(ours[name], plain[name], err_msg=str(name))
    assert {cell.keys["train"] for cell in make_plan(resolve(load_spec(alone))).cells} == {
        cell.keys["train"] for cell in make_plan(resolve(load_spec(probed.parent / "small.toml"))).cells
    }


def test_a_probe_waits_for_the_training_that_it_is_compared_with(
    probed: Path, tmp_path: Path, tiny_model: Path, rated_file: Path
) -> None:
    """The cells that are compared come first, and each worker takes one."""
    spec = small_spec(tmp_path, tiny_model, rated_file, AGAINST.replace(LABEL, EXPLAINED), train=STEPS)
    engine("execute", spec, "--workers", "2")
    probe = store.open_store(tmp_path / "store")["small/probe"].to_dataset()
    name = f"target={EXPLAINED}"
    assert (probe["kl_against"].sel(target=EXPLAINED, against=name) == 0).all()
    before = store.open_store(probed)["small/probe"]["js_against"].sel(
        target=EXPLAINED, position="prompt_end"
    )
    after = probe["js_against"].sel(target=LABEL, position="prompt_end", against=name)
    np.testing.assert_allclose(after, before.sel(against=f"target={LABEL}"), rtol=1e-3, atol=1e-6)


def test_a_cell_alone_is_told_what_it_needs(tmp_path: Path, tiny_model: Path, rated_file: Path) -> None:
    spec = small_spec(tmp_path, tiny_model, rated_file, AGAINST)
    _, told = command("execute", spec, "--only", f"target={EXPLAINED}", "--only", "seed=0")
    assert "probe.against" in told and f"target={LABEL}" in told and "--only" in told


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('against = [{ target = "labl" }]', ["probe.against[0].target", '"labl"', '"label"']),
        ('against = [{ tarket = "label" }]', ["probe.against[0].tarket", "target"]),
        ('against = [{ target = ["label", "label+explanation"] }]', ["probe.against[0].target", "one level"]),
        ("against = [{}]", ["probe.against[0]", "empty"]),
        ('against = ["base", "base"]', ["probe.against[1]", "against[0]"]),
        ('against = ["bass"]', ["probe.against[0]", '"bass"', "base"]),
        ('against = ["base"]\nlens = "tuned"', ["probe.lens", "logit", "tuned"]),
        (
            'against = ["base"]\n[lora]\nmodules_to_save = ["lm_head"]',
            ["lora.modules_to_save", "probe.against"],
        ),
    ],
)
def test_what_cannot_be_compared_is_told_before_the_run(
    tmp_path: Path, tiny_model: Path, rated_file: Path, more: str, words: list[str]
) -> None:
    spec = small_spec(tmp_path, tiny_model, rated_file, f"[probe]\n{more}\n")
    if "[lora]" in more:
        spec.write_text(spec.read_text().replace("[lora]\nr = 2\n", "", 1))
    _, told = command("plan", spec)
    assert all(word in told for word in words), told


def test_a_level_cannot_choose_what_is_compared(tmp_path: Path, tiny_model: Path, rated_file: Path) -> None:
    spec = small_spec(tmp_path, tiny_model, rated_file)
    spec.write_text(
        spec.read_text().replace(
            'target.content = "label" }', 'target.content = "label", probe.against = ["base"] }'
        )
    )
    _, told = command("plan", spec)
    assert "probe.against" in told and '"label"' in told


def test_the_report_draws_the_divergence_from_each_model(probed: Path) -> None:
    tree = store.open_store(probed)["small"]
    places = {f"target={level}": place for place, level in enumerate((LABEL, EXPLAINED))}
    curves = layers(tree, places)["curves"]
    names = {
        f"{measure}_against: {other}" for measure in ("kl", "js") for other in ("base", f"target={LABEL}")
    }
    assert names <= {curve["statistic"] for curve in curves}
    (shown,) = (
        curve
        for curve in curves
        if (curve["statistic"], curve["condition"], curve["position"])
        == ("kl_against: base", 1, "prompt_end")
    )
    assert "untrained model" in shown["title"] and shown["units"] == "nat"
    means = tree.ablation.divergence_from("base", by="target").sel(level=EXPLAINED, position="prompt_end")
    np.testing.assert_allclose(shown["mean"], means["mean"], rtol=1e-3)
