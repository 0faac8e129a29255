"""The loss by segment: what a token counts, held against sums written out from whole logits."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import engine
from drawn_tokenizers import byte_bpe
from facts import told
from hypothesis import given
from hypothesis import strategies as st
from small_study import writer
from spec_problems import problems_of
from torch import nn
from trainings import EOS, load, token_losses, train
from transformers import LlamaConfig, LlamaForCausalLM

from engine.models.lens import find_lens
from engine.stages.training.loss import Collator, Objective, completion_loss, counted
from engine.stages.training.stage import UNITS
from engine.text.targets import Encoded
from specs.tables.experiment import Lora, Train
from specs.tables.loss import SEGMENTS
from specs.tables.target import Prompt, Target

EXAMPLES = [
    Encoded([10, 11, 12], [20, 30, 31, 32, EOS], 3),
    Encoded([13, 14], [40, 41, 21, 22, EOS], 4, 2),  # the explanation first, a label of two tokens
    Encoded([15], [23, EOS], 1),  # no explanation
    Encoded([16, 17, 18, 19], [24, 33, EOS], 4),
]
KINDS = [[0, 1, 1, 1, 2], [1, 1, 0, 0, 2], [0, 2], [0, 1, 2]]


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> Any:
    return load(tiny_model)


def trained_gradient(base: Any, batch: Any, *arguments: Any) -> tuple[float, torch.Tensor]:
    """A loss, and its gradient at the last normed states."""
    seen: list[torch.Tensor] = []
    lens = find_lens(base)
    hook = lens.norm.register_forward_hook(lambda _m, _a, out: seen.append(out.requires_grad_()) or out)
    loss = completion_loss(lens, batch, *arguments)
    loss.backward(inputs=seen)
    hook.remove()
    return loss.item(), seen[0].grad


def test_segments_are_numbered_and_counted() -> None:
    assert [example.segments for example in EXAMPLES] == KINDS
    batch = Collator(padding=EOS)(EXAMPLES)
    assert counted(batch).tolist() == [5, 6, 4]
    lacking = batch | {"labels": torch.full_like(batch["labels"], -100)}  # a rank's row that counts nothing
    assert counted(lacking).tolist() == [0, 0, 0]


@given(
    st.sampled_from(["after", "before", "interleaved"]),
    st.sampled_from(["label", "label+explanation", "label+shuffled"]),
    st.sampled_from(["good", "bad", "10"]),
    st.sampled_from(["it is nice", "so", "", "bad good 10 bad"]),
)
def test_the_labels_segment_is_what_the_label_is_scored_by(
    placement: str, content: str, label: str, said: str
) -> None:
    tokenizer: Any = byte_bpe(["Ġgood", "Ġis", "Ġnice", "go", "1"])
    own = writer(
        tokenizer,
        labels=["good", "bad", "1", "10"],
        prompt=Prompt(template="{context} {response}:", chat_template=False),
        target=Target(content=content, placement=placement),  # type: ignore[arg-type]
    )
    row = {"id": "0", "context": "a", "response": "b", "label": label, "explanation": said}
    encoded = own.encode(row)
    kinds = np.array(encoded.segments)
    assert len(kinds) == len(encoded.completion)
    _, scored = own.encode_labels(row)
    ids = [t for t, kind in zip(encoded.completion, kinds, strict=True) if kind == SEGMENTS.index("label")]
    # "1" begins "10", so that what follows tells them apart, and counts as the label's.
    assert ids == scored[own.labels.index(label)] and len(ids) == len(tokenizer.tokenize(f" {label}")) + 1
    assert (kinds == SEGMENTS.index("end")).sum() == (ids[-1] != own.end)
    if content == "label":
        assert not (kinds == SEGMENTS.index("explanation")).any()


def test_a_plain_objective_is_todays_loss_to_the_bit(base: Any) -> None:
    batch = Collator(padding=EOS)(EXAMPLES)
    lens = find_lens(base)
    hidden = lens.last_hidden(batch["input_ids"])[:, :-1].detach().requires_grad_()
    labels = batch["labels"][:, 1:]
    logits = lens.logits(hidden[labels != -100])
    total = nn.functional.cross_entropy(logits, labels[labels != -100], reduction="sum")
    (total / (labels != -100).sum()).backward()
    for weights in ((1.0, 1.0, 1.0), (0.3, 0.3, 0.3)):
        loss, gradient = trained_gradient(base, batch, None, Objective(weights))
        assert loss == (total / 15).item()
        assert torch.equal(gradient[:, :-1], hidden.grad)


@pytest.mark.parametrize("balance", ["tokens", "segments"])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, 0.0, 0.0), (0.0, 2.0, 1.0), (0.5, 3.0, 0.0)])
def test_weights_are_those_of_sums_over_whole_logits(base: Any, weights: Any, balance: str) -> None:
    losses, kinds = np.array(token_losses(base, EXAMPLES)), np.concatenate(KINDS)
    by_kind = np.array(weights)
    if balance == "tokens":
        expected = np.average(losses, weights=by_kind[kinds])
    else:
        means = [losses[kinds == kind].mean() for kind in range(3)]
        expected = np.average(means, weights=by_kind)
    batch = Collator(padding=EOS)(EXAMPLES)
    loss = completion_loss(find_lens(base), batch, None, Objective(weights, balance))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_masked_explanation_leaves_the_gradient_of_the_label_alone(base: Any) -> None:
    """Also where its words are others: no label token sees what stands behind it."""
    masked = [example for example, kinds in zip(EXAMPLES, KINDS, strict=True) if kinds[0] == 0]
    alone = [Encoded(row.prompt, [row.completion[0], EOS], row.label) for row in masked]
    objective = Objective((1.0, 0.0, 0.0))
    loss, gradient = trained_gradient(base, Collator(padding=EOS)(masked), None, objective)
    other, expected = trained_gradient(base, Collator(padding=EOS)(alone), None, objective)
    assert loss == pytest.approx(other, rel=1e-6)
    width = expected.shape[1]
    torch.testing.assert_close(gradient[:, :width], expected, rtol=1e-5, atol=1e-8)
    assert not gradient[:, width:].any()


def test_no_token_with_a_weight_gives_no_gradient(base: Any) -> None:
    rows = [Encoded([10, 11], [20, EOS], 2)]
    for balance in ("tokens", "segments"):
        loss, gradient = trained_gradient(
            base, Collator(padding=EOS)(rows), None, Objective((0.0, 1.0, 0.0), balance)
        )
        assert loss == 0 and not gradient.any()


@pytest.mark.parametrize("target", [Target(loss_balance="segments"), Target()])
def test_curves_are_those_of_each_segment_however_batches_are_cut(
    base: Any, tokenizer: Any, tmp_path: Path, target: Target
) -> None:
    losses, kinds = np.array(token_losses(base, EXAMPLES)), np.concatenate(KINDS)
    curves = []
    for size in (4, 2, 1):
        settings = Train(
            steps=2, batch_size=size, accumulation=4 // size, precision="float32", lr=1e-2, warmup=0.0
        )
        found = train(
            base, tokenizer, tmp_path / str(size), EXAMPLES, settings=settings, lora=Lora(r=2),
            objective=Objective.of(target),
        )  # fmt: skip
        curves.append(found.curves)
        for number, segment in enumerate(SEGMENTS):
            assert found.curves[f"{segment}_loss"][0] == pytest.approx(
                losses[kinds == number].mean(), rel=1e-4
            )
        assert {f"train_{segment}_loss" for segment in SEGMENTS} < set(found.summary)
        assert set(found.summary) >= {"train_label_token_accuracy", "train_label_token_entropy"}
    for name, other in product(curves[0], curves[1:]):
        np.testing.assert_allclose(curves[0][name], other[name], rtol=2e-3, err_msg=name)


def test_accuracy_and_entropy_are_those_of_the_label_tokens(
    base: Any, tokenizer: Any, tmp_path: Path
) -> None:
    hits, entropies = [], []
    for example, kinds in zip(EXAMPLES, KINDS, strict=True):
        ids = torch.tensor([example.prompt + example.completion])
        log_probs = base(input_ids=ids).logits.double().log_softmax(-1)[0].detach()
        for place in np.flatnonzero(np.array(kinds) == 0):
            row = log_probs[len(example.prompt) + place - 1]
            hits.append(row.argmax().item() == example.completion[place])
            entropies.append(-(row.exp() * row).sum().item())
    settings = Train(steps=1, batch_size=4, precision="float32", lr=1e-2, warmup=0.0)
    found = train(base, tokenizer, tmp_path, EXAMPLES, settings=settings)
    assert found.curves["label_token_accuracy"][0] == pytest.approx(np.mean(hits))
    assert found.curves["label_token_entropy"][0] == pytest.approx(np.mean(entropies), rel=1e-5)
    assert set(found.summary) & set(UNITS) >= {"train_label_loss", "train_label_token_entropy"}


def test_the_best_validation_is_that_of_the_objective(base: Any, tokenizer: Any, tmp_path: Path) -> None:
    settings = Train(
        steps=1, batch_size=3, precision="float32", lr=1e-9, early_stopping=1, validate_every=1, warmup=0.0
    )
    losses, kinds = np.array(token_losses(base, EXAMPLES)), np.concatenate(KINDS)
    found = train(
        base, tokenizer, tmp_path, EXAMPLES, EXAMPLES, settings=settings, objective=Objective((1.0, 0.0, 0.0))
    )
    assert found.summary["validation_loss"] == pytest.approx(losses[kinds == 0].mean(), rel=1e-4)


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("loss = { label = 0, end = 0 }", "target.loss"),
        ('content = "label+explanation"\nloss = { label = 0, explanation = 0, end = 0 }', "target.loss"),
        ("loss = { label = -1 }", "target.loss.label"),
        ("loss = { label = 1e-320, end = 0 }", "target.loss.label"),
        ("loss = { explanation = 1e300 }", "target.loss.explanation"),
        ("loss = { labels = 1 }", "target.loss.labels"),
        ('loss_balance = "segment"', "target.loss_balance"),
    ],
)
def test_weights_that_cannot_be_are_refused(tmp_path: Path, table: str, key: str) -> None:
    base = 'name = "demo"\nmodel.id = "m"\ndata.source = "s"\n'
    assert [problem.key for problem in problems_of(tmp_path, f"[target]\n{table}\n", base)] == [key]


def test_a_planted_loss_share_slows_the_label_and_balance_undoes_it() -> None:
    """The label depends on the prompt, the explanation on nothing: all that it can do is to take its share.

    Plain gradient steps, so that the size of the label's gradient is what counts.
    """
    steps, marks = 30, {}
    generator = torch.Generator().manual_seed(0)
    targets = {
        "label": ([], Objective()),
        "label+explanation": ([30, 31, 32, 33] * 8, Objective()),
        "segments": ([30, 31, 32, 33] * 8, Objective(balance="segments")),
        "masked": ([30, 31, 32, 33] * 8, Objective((1.0, 0.0, 1.0))),
    }
    prompts = torch.randint(40, 60, (24, 3), generator=generator).tolist()
    for name, (explanation, objective) in targets.items():
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                num_attention_heads=4, tie_word_embeddings=False,
            )
        )  # fmt: skip
        rows = [Encoded(prompt, [20 + prompt[0] % 4, *explanation, EOS], 3) for prompt in prompts]
        batch, lens = Collator(EOS)(rows), find_lens(model)
        optimizer = torch.optim.SGD(model.parameters(), 0.3)
        for _ in range(steps):
            completion_loss(lens, batch, None, objective).backward()
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            marks[name] = completion_loss(lens, batch, None, Objective((1.0, 0.0, 0.0))).item()
    assert marks["label+explanation"] > 5 * marks["label"]
    assert marks["masked"] < 1.5 * marks["label"]
    assert marks["segments"] < 1.5 * marks["label"]


def test_weights_of_0_that_the_tokens_alone_tell_are_refused_before_the_training(
    write_spec, tmp_path: Path
) -> None:
    spec = write_spec("[target]\nloss = { label = 0 }\n")
    clash = ('evaluate.labels=["1","2","3","10"]',)  # "1" begins "10": the end token counts as the label's
    ended = engine("execute", spec, "--only", "target=label", "--set", *clash, code=1)
    assert told(ended.output, "target.loss", "8 of 8 train examples", "target.loss.label")
    assert not list((tmp_path / "store").rglob("adapter*"))
    engine("execute", spec, "--only", "target=label", "--only", "seed=0")  # the end token is learned
