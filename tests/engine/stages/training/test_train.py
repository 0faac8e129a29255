"""The loss counts the completion's tokens alone, and training follows its settings to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attrs import evolve
from facts import facts
from trainings import EOS, EXAMPLES, FAST, interrupted, load, saved_weights, token_losses, train

from engine.errors import DataError, UsageError
from engine.models.base_model import as_it_was
from engine.models.lens import find_lens
from engine.process_group.alone import IGNORED
from engine.stages.training.files import load_adapter, saved_training
from engine.stages.training.train import Collator, attach_adapter, completion_loss
from engine.text.targets import Encoded
from specs.tables.experiment import Lora, Train
from store.backend.locate import place_of


@pytest.fixture
def base(tiny_model: Path) -> Any:
    return load(tiny_model)


def trained_names(base: Any, lora: Lora) -> list[str]:
    """What a fresh adapter would train; the base is left as it was."""
    with as_it_was(base):
        return [name for name, p in attach_adapter(base, lora).named_parameters() if p.requires_grad]


def test_the_loss_is_the_mean_over_the_completions_tokens_alone(base: Any) -> None:
    """Token by token, from the model's whole logits of each example by itself, without padding."""
    losses = token_losses(base, EXAMPLES)
    batch = Collator(padding=EOS)(EXAMPLES)
    assert len(losses) == 9
    loss = completion_loss(find_lens(base), batch)
    assert loss.item() == pytest.approx(np.mean(losses), rel=1e-5)
    assert completion_loss(find_lens(base), batch, counts=torch.tensor([1, 2, 0])).item() == pytest.approx(
        np.sum(losses) / 3, rel=1e-5
    )
    theirs = base(**batch).loss
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_an_end_token_counts_although_padding_is_the_same_token() -> None:
    batch = Collator(padding=EOS)(EXAMPLES)
    assert batch["labels"].tolist() == [
        [IGNORED, IGNORED, IGNORED, 20, EOS, IGNORED],
        [IGNORED, IGNORED, 21, 22, EOS, IGNORED],
        [IGNORED, 23, EOS, IGNORED, IGNORED, IGNORED],
        [IGNORED, IGNORED, IGNORED, IGNORED, 24, EOS],
    ]
    assert batch["attention_mask"].sum(1).tolist() == [len(example) for example in EXAMPLES]


def test_prompt_tokens_get_no_loss(base: Any) -> None:
    """The gradient at the logits of all positions but those before a completion token is zero."""
    batch = Collator(padding=EOS)(EXAMPLES)
    seen: list[torch.Tensor] = []
    lens = find_lens(base)
    hook = lens.norm.register_forward_hook(lambda _m, _a, out: seen.append(out.requires_grad_()) or out)
    completion_loss(lens, batch).backward(inputs=seen)
    hook.remove()
    reached = seen[0].grad.abs().sum(-1) > 0
    expected = torch.zeros_like(reached)
    for row, example in enumerate(EXAMPLES):
        expected[row, len(example.prompt) - 1 : len(example) - 1] = True
    assert torch.equal(reached, expected)


def test_accumulated_batches_give_the_gradient_of_the_whole(
    base: Any, tokenizer: Any, tmp_path: Path
) -> None:
    whole = Train(steps=1, batch_size=4, precision="float32", lr=1e-2, warmup=0.0)
    split = Train(steps=1, batch_size=2, accumulation=2, precision="float32", lr=1e-2, warmup=0.0)
    curves = []
    for name, settings in (("whole", whole), ("split", split)):
        curves.append(train(base, tokenizer, tmp_path / name, settings=settings).curves)
    # Completions differ in length, so a mean of the batches' means would not do.
    assert curves[0]["loss"] == pytest.approx(curves[1]["loss"], rel=1e-4)
    assert curves[0]["grad_norm"] == pytest.approx(curves[1]["grad_norm"], rel=1e-4)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    base: Any, tokenizer: Any, tmp_path: Path
) -> None:
    weights = []
    for run, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(base, tokenizer, tmp_path / run, seed=seed, lora=Lora(r=2, dropout=0.2))
        weights.append(saved_weights(tmp_path / run))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_an_adapter_is_saved_as_safetensors_and_taken_off_without_a_trace(
    base: Any, tokenizer: Any, tmp_path: Path
) -> None:
    ids = torch.tensor([[10, 11, 12]])
    before = base(input_ids=ids).logits
    trained = train(base, tokenizer, tmp_path)
    files = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= files
    assert not any(name.endswith((".bin", ".pt")) for name in files)
    assert len(trained.curves["loss"]) == 3 and np.isfinite(trained.curves["loss"]).all()
    assert torch.equal(base(input_ids=ids).logits, before)
    with as_it_was(base):
        model = load_adapter(base, place_of(tmp_path))
        assert not torch.equal(model(input_ids=ids).logits, before)
    assert torch.equal(base(input_ids=ids).logits, before)


def test_modules_trained_in_full_do_not_stay_behind_in_the_base(
    base: Any, tokenizer: Any, tmp_path: Path
) -> None:
    ids = torch.tensor([[10, 11, 12]])
    before = base(input_ids=ids).logits
    train(base, tokenizer, tmp_path, lora=Lora(r=2, modules_to_save=["lm_head"]))
    assert torch.equal(base(input_ids=ids).logits, before)
    own = base.lm_head.weight
    with as_it_was(base):
        model = load_adapter(base, place_of(tmp_path))
        assert not torch.equal(find_lens(model).unembedding.weight, own)
        assert not torch.equal(model(input_ids=ids).logits, before)
    assert base.lm_head.weight is own and torch.equal(base(input_ids=ids).logits, before)


@pytest.mark.parametrize(
    ("lora", "trained"),
    [
        (Lora(r=2), 7),
        (Lora(r=2, target_modules=["q_proj", "v_proj"]), 2),
        (Lora(r=2, target_modules=r".*mlp\.(up|down)_proj"), 2),
    ],
)
def test_target_modules(base: Any, lora: Lora, trained: int) -> None:
    """A Llama block has seven linear modules; the unembedding is none of them."""
    names = {name.split(".lora_")[0] for name in trained_names(base, lora)}
    assert len(names) == 3 * trained and not any("lm_head" in name for name in names)


def test_modules_to_save_dora_and_rslora(base: Any) -> None:
    lora = Lora(r=4, alpha=8, rslora=True, dora=True, target_modules=["q_proj"], modules_to_save=["lm_head"])
    model = attach_adapter(base, lora)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert any("lm_head" in name for name in names) and any("magnitude" in name for name in names)
    (config,) = model.peft_config.values()
    assert config.use_rslora and config.use_dora and config.lora_alpha == 8
    # The lens unembeds with the trained copy.
    assert find_lens(model).unembedding.weight.requires_grad


NORMS = [f"model.layers.{n}.{part}_layernorm" for n in range(3) for part in ("input", "post_attention")]


@pytest.mark.parametrize(("ends", "reached"), [
    ([".norm"], ["model.norm"]), (["norm"], [*NORMS, "model.norm"]),
    (["layernorm", "lm_head"], [*NORMS, "lm_head"]),
])  # fmt: skip
def test_what_is_trained_is_on_record(
    base: Any, tokenizer: Any, tmp_path: Path, ends: list[str], reached: list[str]
) -> None:
    """Modules are named by their ends, so that one name may reach many."""
    lora = Lora(r=2, target_modules=["q_proj"], modules_to_save=ends)
    trained = train(base, tokenizer, tmp_path, lora=lora)
    adapted = [f"model.layers.{n}.self_attn.q_proj" for n in range(3)]
    assert sorted(trained.modules) == sorted([*adapted, *reached])
    saved = saved_weights(tmp_path)
    assert trained.summary["trained_parameters"] == sum(tensor.numel() for tensor in saved.values())
    again = saved_training(place_of(tmp_path))
    assert again is not None and again.modules == trained.modules


def test_a_stopped_training_goes_on_behind_its_last_step(base: Any, tokenizer: Any, tmp_path: Path) -> None:
    settings = Train(steps=6, batch_size=2, precision="float32", lr=1e-2)
    steps = []

    def report(step: int, total: int, text: str) -> None:
        assert total == 6 and text.startswith("loss ") and text.endswith(" tokens/s")
        steps.append(step)

    interrupted(5, base, tokenizer, tmp_path / "a", settings=settings)
    assert (tmp_path / "a" / "checkpoints" / "checkpoint-5").is_dir()
    stopped = train(base, tokenizer, tmp_path / "a", settings=settings, report=report)
    assert steps == [6]
    whole = train(base, tokenizer, tmp_path / "b", settings=settings)
    weights = saved_weights(tmp_path / "a")
    assert all(torch.equal(weights[name], value) for name, value in saved_weights(tmp_path / "b").items())
    np.testing.assert_array_equal(stopped.curves["loss"], whole.curves["loss"])
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"adapter"}


def test_a_checkpoint_that_was_cut_off_is_swept(base: Any, tokenizer: Any, tmp_path: Path) -> None:
    torn = tmp_path / "checkpoints" / "checkpoint-2"
    torn.mkdir(parents=True)
    (torn / "adapter_model.safetensors").write_bytes(b"half")
    trained = train(base, tokenizer, tmp_path)
    assert trained.summary["train_steps"] == 3


def test_examples_that_are_too_long_are_counted_and_left_out(
    base: Any, tokenizer: Any, tmp_path: Path
) -> None:
    long = Encoded(list(range(10, 20)), [20, EOS], 10)
    settings = Train(steps=1, batch_size=2, precision="float32", max_length=8)
    trained = train(base, tokenizer, tmp_path, [*EXAMPLES, long], settings=settings)
    assert trained.summary["train_examples"] == 4
    assert trained.summary["train_examples_too_long"] == 1
    with pytest.raises(DataError, match=facts("train.max_length", "8", "training")):
        train(base, tokenizer, tmp_path, [long], settings=settings)


@pytest.mark.parametrize("key", ["target_modules", "modules_to_save"])
def test_one_unknown_module_among_others_is_named(base: Any, key: str) -> None:
    names = ["q_proj", "up_prj"]
    with as_it_was(base), pytest.raises(UsageError, match=facts(f"lora.{key}", "'up_prj'", "'up_proj'")):
        attach_adapter(base, Lora(**{key: names}))


def test_unknown_target_modules_are_named(base: Any) -> None:
    with pytest.raises(UsageError, match=facts("lora.target_modules", "no_such")):
        attach_adapter(base, Lora(target_modules=["no_such"]))


def test_an_adapter_on_the_unembedding_is_refused(base: Any) -> None:
    with pytest.raises(UsageError, match=facts("lora.target_modules", "modules_to_save")):
        attach_adapter(base, Lora(target_modules=["q_proj", "lm_head"]))


@pytest.mark.parametrize("needless", [{"epochs": 7.0}, {"validate_every": 1}])
def test_a_setting_that_nothing_reads_trains_the_same_adapter(
    base: Any, tokenizer: Any, tmp_path: Path, needless: dict[str, Any]
) -> None:
    """Such settings are not in the stage's key."""
    plain, other = FAST, evolve(FAST, **needless)
    assert plain.in_one_spelling() == other.in_one_spelling() and plain != other
    weights = []
    for name, settings in (("plain", plain), ("other", other)):
        train(base, tokenizer, tmp_path / name, validation=EXAMPLES[:2], settings=settings)
        weights.append(saved_weights(tmp_path / name))
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
