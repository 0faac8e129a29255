"""`probe.differences`: mean differences between models' residual streams, against plain models in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import command, engine
from small_study import small_spec

import engine as ablation_engine
import store
from engine.data import prepare as data
from engine.planning.estimate import estimate
from engine.planning.plan import make_plan
from engine.text.targets import TargetEncoder
from specs import load_spec, resolve

LABEL, EXPLAINED = "label", "label+explanation"
MORE = """
[probe]
examples = 4
positions = ["prompt_end", "completion_end", { range = "explanation", most = 2 }]
against = ["base", { target = "label" }]
differences = true
top_k = 3
"""
STEPS = "steps = 6\nlr = 0.05"


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rated_file: Path) -> Path:
    folder = tmp_path_factory.mktemp("differences")
    engine("execute", small_spec(folder, tiny_model, rated_file, MORE, train=STEPS))
    return folder / "store"


def test_stored_differences_are_those_of_the_plain_models(compared: Path) -> None:
    found = store.open_store(compared)["small/differences"].to_dataset()
    matrix = resolve(load_spec(compared.parent / "small.toml"))
    plan = make_plan(matrix)
    assert found["mean_difference"].dims == ("cell", "layer", "position", "against", "coordinate")
    assert found["position"].values.tolist() == [
        "prompt_end", "completion_end", "explanation[0]", "explanation[1]",
    ]  # fmt: skip
    for cell in plan.cells:
        levels = plan.levels(cell)
        mine = found.sel(target=levels["target"], seed=levels["seed"]).squeeze()
        model, tokenizer = ablation_engine.load_adapter(compared, levels)
        other, _ = ablation_engine.load_adapter(compared, levels | {"target": LABEL})
        model, other = model.double(), other.double()
        writer = TargetEncoder(
            tokenizer=tokenizer,
            prompt=matrix.table("prompt", cell.choice), target=matrix.table("target", cell.choice),
            labels=["1", "2", "3"], dimension="naturalness", seed=levels["seed"],
        )  # fmt: skip
        pairs: list[list[torch.Tensor]] = [[], []]  # by reference, [layers, positions, D] of both, examples
        for row in data.load(compared / "data" / cell.keys["data"], "test", 4):
            encoded = writer.encode(row)
            ids = torch.tensor([encoded.prompt + encoded.completion])
            places = [len(encoded.prompt) - 1, ids.shape[1] - 1]
            if levels["target"] == EXPLAINED:
                places += writer.explanation_places(row)[:2]
            streams = [states(model, ids, places)]
            with model.disable_adapter():
                streams.append(states(model, ids, places))
            streams.append(states(other, ids, places))
            for reference, pair in enumerate(pairs, start=1):
                pair.append(torch.stack([streams[0], streams[reference]]))
        for reference, pair in enumerate(pairs):
            whole = torch.stack(pair)  # [examples, 2, layers, positions, D]
            difference = whole[:, 0] - whole[:, 1]
            mean, count = difference.mean(0), whole.shape[3]
            of = mine.isel(against=reference, position=slice(count))
            scale = float(whole.abs().max())
            np.testing.assert_allclose(of["mean_difference"], mean, rtol=1e-3, atol=1e-6 * scale)
            np.testing.assert_allclose(of["difference_norm"], mean.norm(dim=-1), rtol=1e-3, atol=1e-5 * scale)
            np.testing.assert_allclose(
                of["example_difference_norm"], difference.norm(dim=-1).mean(0), rtol=1e-3, atol=1e-5 * scale
            )
            np.testing.assert_allclose(of["stream_norm"], whole[:, 1].norm(dim=-1).mean(0), rtol=1e-4)
            assert (of["difference_examples"] == 4).all()
            inner = model.base_model.model
            with torch.no_grad():
                log_p = torch.log_softmax(inner.lm_head(inner.model.norm(mean)), -1)
            known = of["difference_norm"].values > 1e-3 * scale
            top = log_p.topk(3)
            np.testing.assert_allclose(of["top_logprob"].values[known], top.values.numpy()[known], rtol=2e-3)
            clear = known & (np.diff(top.values.numpy(), axis=-1).max(axis=-1) < -1e-2)
            np.testing.assert_array_equal(of["top_id"].values[clear], top.indices.numpy()[clear])
        if levels["target"] == LABEL:  # the model itself; no explanation to look into
            own = mine.sel(against=f"target={LABEL}", position="prompt_end")
            assert (own["mean_difference"] == 0).all() and (own["top_id"] == -1).all()
            assert own["top_logprob"].isnull().all()
            inside = mine.sel(position="explanation[0]")
            assert inside["mean_difference"].isnull().all() and (inside["difference_examples"] == 0).all()
    # The first embedding is no layer's work: LoRA leaves it as it is.
    assert (found["mean_difference"].sel(layer=0, position="prompt_end") == 0).all()


def states(model: torch.nn.Module, ids: torch.Tensor, places: list[int]) -> torch.Tensor:
    """Residual streams [layers, positions, D] of a Llama under peft, the last one before its norm."""
    inner = model.base_model.model.model  # type: ignore[union-attr]
    caught: list[torch.Tensor] = []
    hook = inner.norm.register_forward_pre_hook(lambda _, args: caught.append(args[0]))  # type: ignore[union-attr]
    with torch.no_grad():
        hidden = inner(ids, output_hidden_states=True).hidden_states  # type: ignore[operator]
    hook.remove()
    return torch.stack([*hidden[:-1], caught[0]])[:, 0, places]


def test_nothing_else_is_done_for_it(
    compared: Path, tmp_path: Path, tiny_model: Path, rated_file: Path
) -> None:
    plain = small_spec(tmp_path, tiny_model, rated_file, MORE.replace("differences", "# d"), train=STEPS)
    ours = [cell.keys for cell in make_plan(resolve(load_spec(compared.parent / "small.toml"))).cells]
    theirs = [cell.keys for cell in make_plan(resolve(load_spec(plain))).cells]
    for with_it, without in zip(ours, theirs, strict=True):
        assert with_it.keys() - without.keys() == {"differences"}
        assert {name: with_it[name] for name in without} == without


def test_its_key_holds_the_other_training(tmp_path: Path, tiny_model: Path, rated_file: Path) -> None:
    spec = small_spec(tmp_path, tiny_model, rated_file, MORE, train=STEPS)

    def keys(*overrides: str) -> list[str]:
        return [cell.keys["differences"] for cell in make_plan(resolve(load_spec(spec, overrides))).cells]

    before = keys()
    assert keys("probe.statistics=['entropy']", "probe.watch=['a']", "probe.heads=true") == before
    assert not set(before) & set(keys("train.lr=0.01"))
    assert not set(before) & set(keys("probe.examples=3"))
    assert not set(before) & set(keys("probe.layers=[1]"))
    moved = keys("factors.target.levels.label.train.lr=0.01")
    explained = [number for number, key in enumerate(before) if key == moved[number]]
    assert not explained, "cells that are compared with the label's training depend on it"


def test_a_plan_counts_its_passes_and_its_numbers(tmp_path: Path, tiny_model: Path, rated_file: Path) -> None:
    spec = small_spec(tmp_path, tiny_model, rated_file, MORE, train=STEPS)
    costs = estimate(make_plan(resolve(load_spec(spec))))
    fewer = estimate(make_plan(resolve(load_spec(spec, ["probe.against=['base']"]))))
    assert costs is not None and fewer is not None
    assert costs["differences"].flops > 1.4 * fewer["differences"].flops
    layers, positions, against, width = 4, 4, 2, 32
    per_cell = layers * positions * against * 4 * (width + 4 + 2 * 3)
    assert costs["differences"].stored == 4 * per_cell


@pytest.mark.parametrize(
    ("more", "words"),
    [("differences = true", ["probe.differences", "probe.against"])],
)
def test_what_it_lacks_is_told(
    tmp_path: Path, tiny_model: Path, rated_file: Path, more: str, words: list[str]
) -> None:
    _, told = command("plan", small_spec(tmp_path, tiny_model, rated_file, f"[probe]\n{more}\n"))
    assert all(word in told for word in words), told
