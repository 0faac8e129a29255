"""The Jacobian lens: its fit against the definition in float64, and its life in a store."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from children import run, start
from commands import engine, ran
from facts import facts, told
from jacobian_oracle import mean_jacobian
from torch import Tensor

import engine as ablation_engine
import store
from engine.data import prepare
from engine.errors import DataError, EngineError, Interrupted
from engine.models import jacobians
from engine.models.jacobians import Fitted
from engine.models.lens import Lens, find_lens
from engine.models.lens_files import CheckpointFile
from engine.planning.estimate import estimate
from engine.planning.plan import make_plan
from engine.progress import StopRequest, silent
from engine.stages.jacobian_lens import chosen_texts, fit
from engine.text.targets import Encoded, TargetEncoder
from specs import load_spec, resolve
from specs.tables.jacobian import Jacobian
from store.report.collect import collect

SKIP = 2
ONE = ("--only", "seed=0", "--only", "target=label")
JACOBIAN = """
[probe]
examples = 4
positions = ["prompt_end", "completion_end"]
lens = {lens}
batch_size = 3
[probe.jacobian]
skip = 2
max_tokens = 24
prompts = 7
"""


def lens_of(name: str = "llama") -> Lens:
    kind, options = tiny_models.MODELS[name]
    return find_lens(tiny_models.build(kind, options | {"initializer_range": 0.2}))


def texts(count: int = 5) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(5, 10, (count,), generator=generator).tolist()
    return [torch.randint(3, 90, (length,), generator=generator).tolist() for length in lengths]


def fitted(lens: Lens, known: list[list[int]], batch_size: int = 2, **options: Any) -> Fitted:
    defaults = {"report": silent, "stop": StopRequest()}
    return fit(lens, known, Jacobian(skip=SKIP), batch_size=batch_size, padding=0, **(defaults | options))


def test_a_fit_is_the_mean_of_the_texts_jacobians() -> None:
    lens, known = lens_of(), texts()
    found = fitted(lens, known)
    exact = lens_of()
    exact.decoder.double()
    for layer in range(3):
        truth = mean_jacobian(exact, known, layer, SKIP)
        assert (found.weight[layer] - truth).abs().max() < 1e-5 * truth.abs().max()
    assert found.counts.tolist() == [5, sum(map(len, known))]
    each = torch.stack([fitted(lens, [ids]).weight for ids in known]).double()
    np.testing.assert_allclose(found.squares, each.square().sum(dim=(0, 2, 3)), rtol=1e-5)
    assert ((found.errors > 0) & (found.errors < 1)).all()
    whole = fitted(lens, known, batch_size=5)
    torch.testing.assert_close(whole.weight, found.weight, rtol=1e-4, atol=1e-5)


def test_texts_are_the_first_long_enough_cut_and_counted() -> None:
    rows = [Encoded(prompt=[1, 2], completion=list(range(length)), label=2) for length in (9, 1, 2, 30, 5)]
    assert chosen_texts(rows, Jacobian(skip=2, max_tokens=8, prompts=3)) == [
        [1, 2, 0, 1, 2, 3, 4, 5],
        [1, 2, 0, 1],
        [1, 2, 0, 1, 2, 3, 4, 5],
    ]
    with pytest.raises(DataError, match=facts("probe.jacobian.skip", "16", "17", "longest: 11")):
        chosen_texts(rows[:3], Jacobian())


def test_a_model_whose_numbers_are_not_finite_is_named() -> None:
    lens = lens_of()
    lens.layers[1].mlp.down_proj.weight.data[0] = torch.nan
    with pytest.raises(EngineError, match="no finite numbers"):
        fitted(lens, texts(2))


def test_a_fit_that_was_stopped_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.models.jacobian_rows.TOKENS", 150)  # some rows at once, not all
    lens, known, stop = lens_of(), texts(), StopRequest()
    checkpoint, seen, before = CheckpointFile(tmp_path / "kept.safetensors"), list[int](), 0

    def until(done: int, total: int, _: str) -> None:
        seen.append(done)
        assert total == 3 * lens.width
        stop.requested = done > 45 and not before

    with pytest.raises(Interrupted):
        fitted(lens, known, checkpoint=checkpoint, report=until, stop=stop)
    kept = checkpoint.read(lens.device)
    assert kept is not None and int(kept["counts"][0]) == 2
    stop.requested, before = False, len(seen)
    found = fitted(lens, known, checkpoint=checkpoint, report=until, stop=stop)
    assert min(seen[before:]) > lens.width  # the first batch is not done again
    truth = fitted(lens, known)
    assert torch.equal(found.weight, truth.weight) and torch.equal(found.squares, truth.squares)


def spec_of(write_spec: Any, lens: str = '["logit", "jacobian"]', more: str = "", **options: Any) -> Path:
    return write_spec(JACOBIAN.format(lens=lens) + more, **options)


def test_a_jacobian_lens_is_a_stage_of_its_own(write_spec: Any, tmp_path: Path) -> None:
    spec = spec_of(write_spec, train="steps = 6\nlr = 0.05")
    assert "jacobian" in engine("plan", spec).output
    done = ran(engine("execute", spec, "--only", "seed=0").output)
    assert done == {"data": 1, "base": 1, "train": 2, "evaluate": 2, "jacobian": 2, "probe": 2}
    tree = store.open_store(tmp_path / "store")
    node = tree["small/jacobian"].to_dataset()
    assert node["jacobian_norm"].dims == node["jacobian_error"].dims == ("cell", "layer")
    assert (node["jacobian_norm"] > 0.5).all() and (node["jacobian_error"] > 0).all()
    summary = tree["small/summary"].to_dataset()
    assert (summary["jacobian_texts"] == 7).all() and (summary["jacobian_tokens"] > 7 * 3).all()
    np.testing.assert_allclose(summary["jacobian_error"], node["jacobian_error"].mean("layer"), rtol=1e-6)
    probe = tree["small/probe"].to_dataset()
    final = probe["entropy"].sel(layer=3)
    np.testing.assert_array_equal(final.sel(lens="jacobian"), final.sel(lens="logit"))
    assert not (
        probe["kl_final"].sel(layer=1, lens="jacobian") == probe["kl_final"].sel(layer=1, lens="logit")
    ).any()
    (reported,) = collect(tmp_path / "store")["experiments"]
    assert {"entropy", "entropy: jacobian lens"} <= {c["statistic"] for c in reported["layers"]["curves"]}
    # Another way of probing shares the fit; another fit is one.
    more = ("--only", "seed=0", "--only", "target=label")
    assert "Ran 1 probe" in engine("execute", spec, *more, "--set", "probe.top_k=1").output
    assert (
        "Ran 1 jacobian, 1 probe"
        in engine("execute", spec, *more, "--set", "probe.jacobian.prompts=2").output
    )
    assert "0 problems" in engine("verify", tmp_path / "store").output


def plain_lens(model: Any, states: Tensor, weight: Tensor) -> Tensor:
    """log softmax(W norm(J h)) of a Llama in float64."""
    return torch.log_softmax(model.lm_head(model.model.norm(states @ weight.double().T)), -1)


def test_the_stored_statistics_are_those_of_the_definition(write_spec: Any, tmp_path: Path) -> None:
    """From the trained model and the saved matrices, one example at a time, in float64."""
    spec = spec_of(write_spec, '"jacobian"', train="steps = 6\nlr = 0.05")
    engine("execute", spec, *ONE)
    probe = store.open_store(tmp_path / "store")["small/probe"].to_dataset().isel(cell=0)
    assert "lens" not in probe.dims and probe.attrs["lens"] == "jacobian"
    model, tokenizer = ablation_engine.load_adapter(tmp_path / "store", {"target": "label", "seed": 0})
    plain = model.merge_and_unload().double()
    (file,) = (tmp_path / "store").glob("jacobian/*/*.safetensors")
    weight = jacobians.published(file, 3, 32, torch.device("cpu")).weight
    plan = make_plan(resolve(load_spec(spec)))
    (cell,) = (c for c in plan.cells if plan.levels(c) == {"target": "label", "seed": 0})
    writer = TargetEncoder(
        tokenizer=tokenizer, prompt=plan.matrix.table("prompt", cell.choice),
        target=plan.matrix.table("target", cell.choice), labels=["1", "2", "3"], dimension="naturalness",
        seed=0,
    )  # fmt: skip
    for number, row in enumerate(prepare.load(tmp_path / "store/data" / cell.keys["data"], "test", 4)):
        ids = torch.tensor([writer.encode(row).prompt])
        with torch.no_grad():
            hidden = plain(ids, output_hidden_states=True).hidden_states
        for layer in range(3):
            log_p = plain_lens(plain, hidden[layer][0, -1], weight[layer])
            entropy = -(log_p.exp() * log_p).sum()
            found = probe.isel(example=number).sel(layer=layer, position="prompt_end")
            np.testing.assert_allclose(found["entropy"], entropy.detach(), rtol=1e-5)
            top = log_p.max(-1)
            np.testing.assert_allclose(found["top_logprob"].isel(top=0), top.values.detach(), rtol=1e-4)


def test_a_kill_in_the_midst_of_a_fit_loses_one_batch(write_spec: Any, tmp_path: Path) -> None:
    """It dies before its second checkpoint is in place, and goes on from the first to the same bits."""
    spec = spec_of(write_spec, '"jacobian"', train="steps = 0")
    arguments, root = ("execute", spec, *ONE), tmp_path / "store"
    killed = start(tmp_path, *arguments, before_event=2, among="/.checkpoint.safetensors.")
    killed.join(300)
    assert killed.exitcode == -signal.SIGKILL, (tmp_path / "output").read_text()
    assert not list(root.glob("jacobian/*/jacobians*"))
    (kept,) = root.rglob("checkpoint.safetensors")
    sums = CheckpointFile(kept).read(torch.device("cpu")) or {}
    assert int(sums["counts"][0]) == 3  # a batch of the seven texts
    assert store.open_store(root)["small"].attrs["cells_complete"] == 0
    assert "Ran 1 jacobian, 1 probe" in run(tmp_path, *arguments)
    assert not list(root.rglob("checkpoint.safetensors"))
    run(tmp_path, *arguments, "--store", tmp_path / "undisturbed")
    found, truth = (
        next(p.glob("jacobian/*/*.safetensors")).read_bytes() for p in (root, tmp_path / "undisturbed")
    )
    assert found == truth


def test_a_store_with_a_fit_is_looked_after(write_spec: Any, tmp_path: Path) -> None:
    root, spec = tmp_path / "store", spec_of(write_spec, '"jacobian"', train="steps = 0")
    engine("execute", spec, *ONE)
    file = next(root.glob("jacobian/*/*.safetensors"))
    assert "garbage: 0 items" in engine("gc", root).output
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "its content has changed" in engine("verify", root, code=1).output
    output = engine("execute", spec, *ONE, "--set", "probe.top_k=1", code=1).output
    assert "DamagedLensError" in output and "--retry-failed fits it again" in output
    again = engine("execute", spec, *ONE, "--set", "probe.top_k=1", "--retry-failed").output
    assert "Ran 1 jacobian, 1 probe" in again and file.read_bytes() == content
    engine("gc", root, "--delete")
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_fit_whose_commit_was_lost_is_taken_up(
    write_spec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, spec = tmp_path / "store", spec_of(write_spec, '"jacobian"', train="steps = 0")
    engine("execute", spec, *ONE)
    (key,) = (path.name for path in (root / "jacobian").iterdir())
    before = store.open_store(root)["small/jacobian"]["jacobian_error"].values
    (root / "ledger" / "jacobian" / f"{key}.done.json").unlink()

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("fitted again")

    monkeypatch.setattr("engine.stages.jacobian_lens.fit", never)
    assert "Ran 1 jacobian;" in engine("execute", spec, *ONE).output
    np.testing.assert_array_equal(store.open_store(root)["small/jacobian"]["jacobian_error"].values, before)


def test_a_file_serves_in_place_of_a_fit(write_spec: Any, tmp_path: Path) -> None:
    root, spec = tmp_path / "store", spec_of(write_spec, train="steps = 0")
    engine("execute", spec, *ONE)
    file = next(root.glob("jacobian/*/*.safetensors"))
    by_file = spec_of(write_spec, more=f'path = "{file}"\n', train="steps = 0", name="file")
    assert "Ran 1 probe;" in engine("execute", by_file, *ONE).output
    tree = store.open_store(root)
    fit_here, loaded = (tree[f"{name}/probe"].to_dataset() for name in ("small", "file"))
    np.testing.assert_array_equal(fit_here["entropy"], loaded["entropy"])
    # What is published has no matrix for the embedding, of which nothing can be read then.
    weight = jacobians.published(file, 3, 32, torch.device("cpu")).weight
    torch.save({"J": {0: weight[1], 1: weight[2]}}, tmp_path / "lens.pt")
    published = spec_of(write_spec, more='path = "lens.pt"\n', train="steps = 0", name="published")
    engine("execute", published, *ONE)
    found = store.open_store(root)["published/probe"].to_dataset()
    assert found["entropy"].sel(layer=0, lens="jacobian").isnull().all() and not found["nonfinite"].any()
    rest = {"layer": [1, 2, 3]}
    np.testing.assert_array_equal(found["entropy"].sel(rest), fit_here["entropy"].sel(rest))
    assert (found["top_id"].sel(layer=0, lens="jacobian") == -1).all()
    # Its content counts: another one is another probe, the same under another name is none.
    (tmp_path / "lens.pt").rename(tmp_path / "same.pt")
    same = spec_of(write_spec, more='path = "same.pt"\n', train="steps = 0", name="published")
    assert "Nothing to do" in engine("execute", same, *ONE).output
    torch.save({"J": {0: weight[1], 1: 2 * weight[2]}}, tmp_path / "same.pt")
    assert "Ran 1 probe;" in engine("execute", same, *ONE).output


def test_a_file_that_cannot_serve_is_told_before_anything_is_trained(write_spec: Any, tmp_path: Path) -> None:
    torch.save({"J": {0: torch.zeros(8, 8)}}, tmp_path / "lens.pt")
    spec = spec_of(write_spec, more='path = "lens.pt"\n')
    output = engine("execute", spec, *ONE, code=1).output
    assert told(output, "probe.jacobian.path", "lens.pt", "(8, 8)", "(32, 32)") and "Ran 1 data" in output
    missing = spec_of(write_spec, more='path = "lense.pt"\n')
    output = engine("plan", missing, code=2).output
    assert told(output, "probe.jacobian.path", "found no file", "lense.pt", 'did you mean "lens.pt"')


BASE = 'fitted_on = "base"\n'


@pytest.mark.parametrize("corpus", ["train", "builtin", "words.txt"])
def test_a_lens_of_the_base_model_is_fitted_once_for_all(
    write_spec: Any, tmp_path: Path, corpus: str
) -> None:
    """Of any targets and seeds, and what it gives is what the untrained model gives."""
    (tmp_path / "words.txt").write_text("the model rates a reply as good or bad " * 20)
    tuned = f'[probe.tuned]\nsteps = 3\ntokens = 40\n{BASE}corpus = "{corpus}"\n'
    more = f'{BASE}corpus = "{corpus}"\n{tuned}'
    spec = spec_of(write_spec, '["logit", "tuned", "jacobian"]', more, train="steps = 6\nlr = 0.05")
    done = ran(engine("execute", spec).output)
    assert done["train"] == done["probe"] == 4 and done["lens"] == done["jacobian"] == 1
    (file,) = (tmp_path / "store").glob("jacobian/*/*.safetensors")
    untrained = spec_of(
        write_spec, '["logit", "tuned", "jacobian"]', more, train="steps = 0", name="untrained"
    )
    assert "lens" not in ran(engine("execute", untrained, *ONE).output)
    if corpus != "train":  # a model of its own reads the same texts, too
        own = spec_of(
            write_spec, '"jacobian"', f'corpus = "{corpus}"\n', train="steps = 6\nlr = 0.05", name="own"
        )
        assert ran(engine("execute", own, *ONE).output)["jacobian"] == 1
        files = set((tmp_path / "store").glob("jacobian/*/*.safetensors"))
        assert len(files) == 2
        (other,) = files - {file}
        read = [jacobians.published(path, 3, 32, torch.device("cpu")).weight for path in (file, other)]
        assert (read[0] - read[1]).abs().max() > 1e-4
    if corpus == "words.txt":
        (tmp_path / "words.txt").write_text("other words " * 30)
        assert ran(engine("execute", spec, *ONE).output) == {"lens": 1, "jacobian": 1, "probe": 1}


def test_shared_lenses_compare_models_and_follow_a_training(write_spec: Any, tmp_path: Path) -> None:
    more = f"{BASE}"
    spec = spec_of(write_spec, '["logit", "jacobian"]', more, train="steps = 6\nlr = 0.05")
    text = spec.read_text().replace("[probe]\n", '[probe]\nagainst = ["base"]\nat = [0, 1.0]\n', 1)
    spec.write_text(text)
    engine("execute", spec, *ONE)
    tree = store.open_store(tmp_path / "store")
    probe, along = tree["small/probe"].to_dataset(), tree["small/along"].to_dataset()
    assert probe["kl_against"].dims == ("cell", "example", "layer", "position", "lens", "against")
    assert (probe["kl_against"].sel(layer=3) > 0).all()
    np.testing.assert_array_equal(
        along["entropy"].sel(step=1.0).transpose(*probe["entropy"].dims), probe["entropy"]
    )
    of_base = along["entropy"].sel(step=0.0)
    assert not np.array_equal(of_base.values, probe["entropy"].transpose(*of_base.dims).values)
    refused = spec_of(write_spec, name="refused")
    refused.write_text(
        refused.read_text().replace("[probe]\n", '[probe]\nagainst = ["base"]\nat = [0, 1.0]\n', 1)
    )
    output = engine("plan", refused, code=2).output
    for key in ("probe.against", "probe.at"):
        assert told(output, "probe.lens", '"jacobian"', key, 'probe.jacobian.fitted_on = "base"')


def test_the_plan_counts_a_backward_pass_for_every_coordinate(write_spec: Any, tiny_model: Path) -> None:
    def cost(more: str) -> Any:
        found = estimate(make_plan(resolve(load_spec(spec_of(write_spec, '"jacobian"', more)))))
        assert found is not None
        return found["jacobian"]

    one, twice = cost("prompts = 2\n".replace("prompts", "# prompts")), cost("")
    assert one == twice
    each = cost('corpus = "builtin"\n')
    fewer = cost('corpus = "builtin"\nfitted_on = "base"\n')
    assert each.tokens == 4 * 7 * 24 and fewer.tokens == 7 * 24  # a fit for each of four cells, or for all
    parameters = 3 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64 + 2 * 32)
    assert fewer.flops == pytest.approx(2 * parameters * 7 * 24 * 33, rel=0.02)
    assert fewer.stored == pytest.approx(4 * 3 * 32 * 32, rel=0.02)
