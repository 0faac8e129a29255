"""The tuned lens against its definition in plain torch, and its life in a store."""

from __future__ import annotations

import copy
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from attrs import evolve
from children import run, start
from commands import engine, ran
from facts import facts, told
from torch import Tensor, nn

import store
from engine.errors import DamagedLensError, EngineError, Interrupted
from engine.models import translators
from engine.models.lens import Lens, find_lens
from engine.models.translators import Translators
from engine.progress import StopRequest, silent
from engine.stages import tuned_lens as tune
from engine.text.targets import Encoded
from specs.tables.tuned import Tuned
from store.backend.locate import place_of
from store.backend.records import hash_file
from store.report.collect import collect

ONE = ("--only", "seed=0", "--only", "target=label")
TUNED = """
[factors.lens]
path = "probe.lens"
values = ["logit", "tuned"]

[probe.tuned]
steps = 30
tokens = 64
"""


def model_of(name: str) -> Any:
    """A tiny model whose layers differ enough for the lens to have something to learn."""
    kind, options = tiny_models.MODELS[name]
    return tiny_models.build(kind, options | {"initializer_range": 0.3})


def examples(count: int = 12) -> list[Encoded]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(4, 12, (count,), generator=generator).tolist()
    rows = [torch.randint(3, 96, (length,), generator=generator).tolist() for length in lengths]
    return [Encoded(prompt=row[:3], completion=row[3:], label=3) for row in rows]


def trained(lens: Lens, settings: Tuned, batch_size: int = 4) -> tuple[Translators, np.ndarray]:
    return tune.tune(
        lens, examples(), settings, batch_size=batch_size, padding=0, backend="auto", report=silent,
        stop=StopRequest(),
    )  # fmt: skip


def by_definition(model: Any, settings: Tuned) -> tuple[list[nn.Linear], np.ndarray]:
    """The training loop of tuned-lens 0.2.0 in plain torch: whole logits, autograd, layer after layer."""
    lens = find_lens(model)
    count, width = len(lens.layers), lens.unembedding.width
    linear = nn.Linear(width, width)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    layers = nn.ModuleList(copy.deepcopy(linear) for _ in range(count))
    optimizer = torch.optim.SGD(
        layers.parameters(), lr=settings.lr * 0.1, momentum=0.9, nesterov=True,
        weight_decay=settings.weight_decay,
    )  # fmt: skip
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, settings.steps)
    losses = []
    for _, chosen in zip(range(settings.steps), tune.draws(examples(), settings), strict=False):
        tokens = sum(map(len, chosen))
        step = torch.zeros(count)
        for example in chosen:
            ids = torch.tensor([example.prompt + example.completion])
            with torch.no_grad():
                output = model(ids, output_hidden_states=True)
            final = output.logits.log_softmax(-1)
            for number, (layer, h) in enumerate(zip(layers, output.hidden_states[:-1], strict=True)):
                logits = lens.logits(lens.norm(h + layer(h)))
                loss = (final.exp() * (final - logits.log_softmax(-1))).sum(-1).sum() / tokens
                loss.backward()
                step[number] += loss.detach()
        nn.utils.clip_grad_norm_(layers.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(step.numpy())
    return list(layers), np.stack(losses)


@pytest.mark.parametrize(
    "name", ["llama", "gpt2", "gemma 2, soft-capped", "phi, biased head", "cohere, scaled"]
)
def test_training_is_that_of_the_definition(name: str) -> None:
    model, settings = model_of(name), Tuned(steps=12, tokens=40)
    ours, curve = trained(find_lens(model), settings)
    layers, losses = by_definition(model, settings)
    np.testing.assert_allclose(curve, losses, rtol=2e-3, atol=1e-5)
    for number, layer in enumerate(layers):
        torch.testing.assert_close(ours.weight[number], layer.weight.detach(), rtol=1e-2, atol=2e-4)
        torch.testing.assert_close(ours.bias[number], layer.bias.detach(), rtol=1e-2, atol=2e-4)
    assert ours.weight.abs().max() > 0.01


def mean_kl(lens: Lens) -> Tensor:
    """KL(final ‖ layer) on the training examples of every layer, the last one included, from whole logits."""
    numbers, found = list(range(len(lens.layers) + 1)), []
    for example in examples():
        ids = torch.tensor([example.prompt + example.completion])
        with torch.no_grad(), lens.watching(numbers, torch.arange(ids.shape[1])[None]) as caught:
            final = lens.logits(lens.last_hidden(ids, torch.ones_like(ids))).log_softmax(-1)
            normed = [lens.normed(hidden, layer) for layer, hidden in enumerate(caught)]
        rows = [lens.logits(row).log_softmax(-1) for row in normed]
        found.append(torch.stack([(final.exp() * (final - row)).sum(-1).mean() for row in rows]))
    return torch.stack(found).mean(dim=0)


@pytest.mark.parametrize("name", ["llama", "opt, projected, normed after", "gpt-neox", "mixtral"])
def test_every_layer_comes_nearer_and_the_last_stays(name: str) -> None:
    lens = find_lens(tiny_models.adapt(model_of(name)))
    tuned, _ = trained(lens, Tuned(steps=60, tokens=60))
    before, after = mean_kl(lens), mean_kl(evolve(lens, maps=tuned))
    assert (after[:-1] < before[:-1]).all()
    assert before[-1].abs() < 1e-5 and torch.equal(after[-1], before[-1])


def test_rounded_products_train_much_the_same_translators() -> None:
    lens = find_lens(model_of("llama"))
    (exact, curve), (rounded, ours) = (
        trained(lens, Tuned(steps=20, tokens=64, precision=precision))
        for precision in ("float32", "bfloat16")
    )
    assert rounded.weight.dtype == torch.float32 and not torch.equal(exact.weight, rounded.weight)
    assert (exact.weight - rounded.weight).norm() < 0.05 * exact.weight.norm()
    np.testing.assert_allclose(ours, curve, rtol=0.02, atol=1e-3)


def test_untrained_translators_are_the_logit_lens_to_the_bit() -> None:
    lens = find_lens(model_of("llama").bfloat16())
    nothing = Translators.identity(3, 32, torch.device("cpu"))
    hidden = torch.randn(2, 3, 32).bfloat16()
    assert all(torch.equal(nothing.translate(hidden, layer), hidden) for layer in range(4))
    assert lens.normed(hidden, 1).dtype == torch.bfloat16


def test_batches_change_nothing_and_the_model_is_left_alone() -> None:
    model = tiny_models.adapt(model_of("llama"))
    before = {name: p.clone() for name, p in model.named_parameters()}
    settings = Tuned(steps=5, tokens=60)
    one, _ = trained(find_lens(model), settings, batch_size=1)
    all_, _ = trained(find_lens(model), settings, batch_size=12)
    torch.testing.assert_close(one.weight, all_.weight, rtol=1e-3, atol=1e-5)
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in model.named_parameters())


def test_a_step_takes_whole_examples_until_it_has_its_tokens() -> None:
    known = examples()
    taken = [next(draw) for draw in [tune.draws(known, Tuned(tokens=30))] for _ in range(8)]
    for chosen in taken:
        assert sum(map(len, chosen[:-1])) < 30 <= sum(map(len, chosen))
    first = [id(example) for chosen in taken for example in chosen][: len(known)]
    assert len(set(first)) == len(known)  # each once before any comes again
    assert len(next(tune.draws(known, Tuned(tokens=10**9)))) == len(known)


def test_a_training_that_leaves_the_numbers_names_the_rate() -> None:
    model = model_of("llama")
    model.model.norm.weight.data[0] = torch.nan
    with pytest.raises(EngineError, match=facts("probe.tuned.lr", "1.0", "step 1")):
        trained(find_lens(model), Tuned(steps=2, tokens=20))


def test_a_training_that_was_stopped_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "KEPT_EVERY", 4)
    lens, settings = find_lens(model_of("llama")), Tuned(steps=12, tokens=40)
    checkpoint, stop, steps = translators.Checkpoint(tmp_path / "a" / "kept.safetensors"), StopRequest(), []

    def until(step: int, _: int, __: str) -> None:
        steps.append(step)
        stop.requested = step == 6 and steps.count(6) == 1

    def run(**options: Any) -> tuple[Translators, np.ndarray]:
        return tune.tune(
            lens, examples(), settings, batch_size=4, padding=0, backend="auto", report=until, stop=stop,
            **options,
        )  # fmt: skip

    with pytest.raises(Interrupted):
        run(checkpoint=checkpoint)
    stop.requested = False
    found, curve = run(checkpoint=checkpoint)
    assert steps == [*range(1, 7), *range(5, 13)]
    truth, whole = trained(lens, settings)
    assert torch.equal(found.weight, truth.weight) and torch.equal(found.bias, truth.bias)
    np.testing.assert_array_equal(curve, whole)
    checkpoint.file.write_bytes(checkpoint.file.read_bytes()[:40])  # a torn one is as none
    assert checkpoint.read(lens.device) is None
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["kept.safetensors"]


def test_a_file_of_translators_is_saved_once_and_checked(tmp_path: Path) -> None:
    home, device = place_of(tmp_path / "key"), torch.device("cpu")
    file = tmp_path / "key" / translators.FILE
    first = Translators(torch.randn(2, 4, 4), torch.randn(2, 4))
    curve = np.random.default_rng(0).random((3, 2), np.float32)
    assert translators.save(home, first, curve)
    assert not translators.save(home, Translators.identity(2, 4, device), curve)
    again, own = translators.read(home, device) or ()
    assert torch.equal(again.weight, first.weight) and torch.equal(again.bias, first.bias)
    np.testing.assert_array_equal(own, curve)
    assert [path.name for path in file.parent.iterdir()] == [translators.FILE]
    known = {"bytes": file.stat().st_size, "blake2b": hash_file(file)}
    same = translators.checked(home, device, {file.name: known})
    assert torch.equal(same.weight, first.weight)
    with pytest.raises(DamagedLensError, match="its content has changed"):
        translators.checked(home, device, {file.name: known | {"blake2b": "0" * 32}})
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(DamagedLensError, match="not a whole file"):
        translators.read(home, device)
    with pytest.raises(DamagedLensError, match="missing"):
        translators.checked(place_of(tmp_path / "none"), device, {})


def test_a_tuned_lens_is_a_stage_of_its_own(write_spec, tmp_path: Path) -> None:
    spec = write_spec(TUNED)
    assert "lens" in engine("plan", spec).output
    executed = ran(engine("execute", spec, "--only", "seed=0").output)
    assert executed == {"data": 1, "base": 1, "train": 2, "evaluate": 2, "lens": 2, "probe": 4}
    tree = store.open_store(tmp_path / "store")
    probe = tree["small/probe"].to_dataset()
    logit, tuned = (probe["kl_final"].sel(lens=lens, target="label") for lens in ("logit", "tuned"))
    layers = list(range(3))
    assert (tuned.sel(layer=layers).mean(["example"]) < logit.sel(layer=layers).mean(["example"])).all()
    assert (tuned.sel(layer=3) == 0).all()
    final = probe["entropy"].sel(layer=3, target="label")
    np.testing.assert_array_equal(final.sel(lens="tuned"), final.sel(lens="logit"))
    curves = tree["small/lens"].to_dataset()["translator_kl"]
    assert curves.dims == ("cell", "step", "layer") and curves.sizes["step"] == 30
    assert (curves.isel(step=-1) < curves.isel(step=0)).all()
    summary = tree["small/summary"].to_dataset().sel(lens="tuned")
    np.testing.assert_allclose(summary["lens_kl"], curves.isel(step=-1).mean("layer"), rtol=1e-6)
    assert probe.attrs["lens"] == "logit, tuned"
    changed = tree["small"].ablation.change("kl_final", "lens", "logit")
    assert (changed["difference"].sel(layer=layers) < 0).all()
    (reported,) = collect(tmp_path / "store")["experiments"]
    drawn = [curve for curve in reported["layers"]["curves"] if curve["statistic"] == "kl_final"]
    assert len(drawn) == len(reported["conditions"]) == 4
    assert reported["tuned"]["twins"] == {"1": 0, "3": 2}
    assert "Nothing to do" in engine("execute", spec, "--only", "seed=0").output
    # Another way of probing shares the translators; another way of training them does not.
    more = ("--only", "seed=0", "--only", "lens=tuned", *ONE[2:])
    assert "Ran 1 probe" in engine("execute", spec, *more, "--set", "probe.top_k=1").output
    again = engine("execute", spec, *more, "--set", "probe.tuned.lr=0.5").output
    assert "Ran 1 lens, 1 probe" in again


def test_a_store_with_a_lens_is_looked_after(write_spec, tmp_path: Path) -> None:
    root, only = tmp_path / "store", (*ONE, "--only", "lens=tuned")
    spec = write_spec(TUNED, train="steps = 0")
    engine("execute", spec, *only)
    file = next((root / "lens").glob("*/*.safetensors"))
    assert "0 problems" in engine("verify", root).output
    assert "garbage: 0 items" in engine("gc", root).output
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "its content has changed" in engine("verify", root, code=1).output
    # The probe does not read what has changed, and says how to go on.
    output = engine("execute", spec, *only, "--set", "probe.top_k=1", code=1).output
    assert "DamagedLensError" in output and "--retry-failed fits it again" in output
    assert (
        "Ran 1 lens, 1 probe"
        in engine("execute", spec, *only, "--set", "probe.top_k=1", "--retry-failed").output
    )
    assert file.read_bytes() == content
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    fixed = engine("verify", root, "--fix", code=1).output
    assert "to be done again" in fixed and not file.exists()
    engine("execute", spec, *only)
    assert file.read_bytes() == content
    assert told(engine("gc", root).output, "made again")
    engine("gc", root, "--delete")
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    (root / "experiments" / "small.json").unlink()
    engine("execute", write_spec(train="steps = 0"), *ONE)
    assert f"lens/{file.parent.name}" in engine("gc", root).output


def test_a_kill_in_the_midst_of_it_leaves_nothing_half(write_spec, tmp_path: Path) -> None:
    """It dies before its second checkpoint is in place, and goes on from the first."""
    spec = write_spec(TUNED.replace("steps = 30", "steps = 60"), train="steps = 0")
    arguments, root = ("execute", spec, *ONE, "--only", "lens=tuned"), tmp_path / "store"
    killed = start(tmp_path, *arguments, before_event=2, among="/.checkpoint.safetensors.")
    killed.join(300)
    assert killed.exitcode == -signal.SIGKILL, (tmp_path / "output").read_text()
    assert not list(root.glob("lens/*/translators*"))
    (kept,) = root.rglob("checkpoint.safetensors")
    _, _, curve = translators.Checkpoint(kept).kept(torch.device("cpu")) or ()
    assert len(curve) == tune.KEPT_EVERY
    assert store.open_store(root)["small"].attrs["cells_complete"] == 0
    assert "Ran 1 lens, 1 probe" in run(tmp_path, *arguments)
    run(tmp_path, *arguments, "--store", tmp_path / "undisturbed")
    found, truth = (
        next(p.glob("lens/*/*.safetensors")).read_bytes() for p in (root, tmp_path / "undisturbed")
    )
    assert found == truth


def test_saved_translators_are_taken_up_where_the_commit_was_lost(
    write_spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only, root = (*ONE, "--only", "lens=tuned"), tmp_path / "store"
    spec = write_spec(TUNED, train="steps = 0")
    engine("execute", spec, *only)
    (key,) = (path.name for path in (root / "lens").iterdir())
    before = store.open_store(root)["small/lens"]["translator_kl"].values
    (root / "ledger" / "lens" / f"{key}.done.json").unlink()

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("trained again")

    monkeypatch.setattr("engine.stages.tuned_lens.tune", never)
    assert "Ran 1 lens;" in engine("execute", spec, *only).output
    np.testing.assert_array_equal(store.open_store(root)["small/lens"]["translator_kl"].values, before)
