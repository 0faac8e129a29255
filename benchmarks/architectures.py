"""Every causal architecture of transformers, tiny, through what the engine does to a model.

`python -m benchmarks.architectures > docs/models.md` writes the page; with types as arguments it tells of
these alone. Each type has a process of its own, limited in time and memory.
"""

from __future__ import annotations

import multiprocessing
import queue
import resource
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import transformers
from attrs import frozen
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from benchmarks.tiny_configs import LAYERS, tiny
from engine.errors import EngineError
from engine.models.base_model import as_it_was
from engine.models.lens import find_lens
from engine.models.lens_check import check_lens
from engine.models.load_errors import loading_error
from engine.stages.training.adapter import attach_adapter
from engine.stages.training.loss import Collator, completion_loss
from engine.text.targets import Encoded
from specs.tables.experiment import Lora, Model

SECONDS, MEMORY = 120, 6 * 2**30
STEPS = 2

PAGE = """\
# Models

Any model that transformers loads as a causal language model (`AutoModelForCausalLM`) can be tried. What is
trained, scored and probed goes through the decoder and the lens (final norm, then unembedding) and not
through the model's own `forward`, so the lens is held against it.

## When a model is loaded

- **The lens is the model.** Two rows of eight drawn tokens go through the model once and through its
  decoder once. The logits that the last hidden states unembed to, and those of the last layer's residual
  stream behind the final norm, have to be the model's own: up to 10⁻⁴ of their size in float32, 2·10⁻³ in
  float16, 10⁻² in bfloat16 (root mean square), which is what the model rounds its own to. One row's logits
  are made large on the way, so that a soft-cap shows. Each layer has to run once over one residual stream,
  and no token may see later ones. Else the cell fails before anything is trained, with the model's class
  and by how much the logits differ. Scales and soft-caps are read from the configuration (`logits_scaling`,
  `logit_scale`, `lm_head_multiplier`, `final_logit_softcapping` and others).
- **All weights are there.** A checkpoint that lacks weights, or has some of another shape, is an error that
  names them; a head that is tied to the embedding lacks nothing. Weights that the model has no place for
  are a warning.
- **Attention.** `model.attention = "sdpa"` is the default. Some architectures (Gemma 2, GPT-OSS) know only
  `"eager"`; the error says so.
- **Device.** `model.device = "auto"` takes a GPU if torch can use one. Where the machine has an NVIDIA GPU
  that torch cannot use (an old driver, a torch without CUDA), a warning says so before the model is loaded,
  and so does `engine doctor`.

## What an adapter is put on

`lora.target_modules`, whatever it is, reaches only modules that take part when the decoder reads text: no
vision or audio tower, nor what joins it to the decoder. Routers that give more than one value (Llama 4,
PhiMoE) are left out, too, and `all-linear` leaves out the output projection of state-space mixers, whose
fused kernels read its weight past an adapter. `lora.modules_to_save` outside of the decoder and the
unembedding is an error.

## Architectures

The types of transformers {version}, as `python -m benchmarks.architectures` finds them: {layers} layers,
some thousand random weights, float32, on a CPU, attention `sdpa` where the architecture has it. *works*:
the lens is the model, {steps} steps of training move the adapter at a finite loss, and taking it off leaves
every weight and every logit as it was, to the bit. *refused*: in one sentence, before training. A type that
works in tiny form may still need more than the engine gives at its own size.

{counts}

| type | class | outcome |
| --- | --- | --- |
"""


@frozen
class Outcome:
    """What became of a type: `works`, `refused`, `not tried` or `FAILED`, and why."""

    kind: str
    model: str
    result: str
    why: str = ""


def walk(kinds: Iterable[str]) -> Iterator[Outcome]:
    """Try each type in a process of its own."""
    context = multiprocessing.get_context("fork")
    _warm_up()
    for kind in kinds:
        results = context.Queue()
        process = context.Process(target=_limited, args=(kind, results))
        process.start()
        try:
            yield results.get(timeout=SECONDS)
        except queue.Empty:
            yield Outcome(kind, "", "not tried", f"no answer within {SECONDS} s")
        process.kill()
        process.join()


def _warm_up() -> None:
    """Import once what every child needs."""
    attach_adapter(AutoModelForCausalLM.from_config(tiny("llama")), Lora(r=2))


def _limited(kind: str, results: Any) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    try:
        results.put(try_kind(kind))
    except BaseException as error:
        results.put(Outcome(kind, "", "FAILED", f"{type(error).__name__}: {error}"))


def try_kind(kind: str) -> Outcome:
    """Do to a tiny model of a type what the engine does to a real one."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    try:
        config = tiny(kind)
        try:
            model = _built(config, "sdpa")
        except (ValueError, ImportError) as error:
            if "attention" not in str(loading_error(Model(id=kind), error)).partition(":")[0]:
                raise
            model = _built(config, "eager")
    except Exception as error:
        return Outcome(kind, "", "not tried", f"its tiny form cannot be built: {_line(error)}")
    name = type(model).__name__
    try:
        check_lens(model)
        _train(model)
    except EngineError as error:
        return Outcome(kind, name, "refused", _line(error))
    eager = "" if model.config._attn_implementation == "sdpa" else '`model.attention = "eager"`'
    return Outcome(kind, name, "works", eager)


def _built(config: Any, attention: str) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    return model.float().eval().requires_grad_(False)


def _train(model: Any) -> None:
    """Train an adapter for some steps and take it off; AssertionError unless the base model is as it was."""
    examples = [Encoded([5, 6, 7, 8], [9, 10], 4), Encoded([11, 12, 13], [14, 15], 3)]
    batch = Collator(0)(examples)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    logits = _logits(model, batch)
    with as_it_was(model):
        adapted = attach_adapter(model, Lora(r=2))
        lens = find_lens(adapted)
        trained = [value for value in adapted.parameters() if value.requires_grad]
        start = [value.detach().clone() for value in trained]
        optimizer = torch.optim.AdamW(trained, lr=1e-2)
        adapted.train()
        for _ in range(STEPS):
            loss = completion_loss(lens, batch)
            assert loss.isfinite(), f"the loss is {loss.item()}"
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        moved = [not torch.equal(now, then) for now, then in zip(trained, start, strict=True)]
        assert any(moved), "training moves nothing"
    after = model.eval().state_dict()
    assert after.keys() == before.keys(), "its modules have other names afterwards"
    changed = [name for name, value in before.items() if not torch.equal(value, after[name])]
    assert not changed, f"training changed {changed[0]}"
    assert torch.equal(_logits(model, batch), logits), "its logits are others afterwards"


def _logits(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
        ).logits
    return logits


def _line(error: Exception) -> str:
    """Give an error's message in one line, without the key that is the same for all."""
    text = " ".join(str(error).removeprefix("model.id: ").split())
    return (text if len(text) <= 300 else f"{text[:297]}...").replace("|", "\\|")


def page(outcomes: list[Outcome]) -> str:
    """Give the page with the table."""
    counts = Counter(outcome.result for outcome in outcomes)
    said = ", ".join(f"{count} {result}" for result, count in counts.most_common())
    head = PAGE.format(
        version=transformers.__version__, layers=LAYERS, steps=STEPS, counts=f"{len(outcomes)} types: {said}."
    )
    rows = [
        f"| {o.kind} | {o.model} | {o.result}{': ' if o.why else ''}{o.why} |"
        for o in sorted(outcomes, key=lambda outcome: outcome.kind)
    ]
    return head + "\n".join(rows) + "\n"


def main(kinds: list[str]) -> int:
    """Print the page, or the outcomes of single types; 1 where any has failed."""
    outcomes = []
    for outcome in walk(kinds or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)):
        outcomes.append(outcome)
        print(outcome.kind, outcome.result, outcome.why, file=sys.stderr, flush=True)
    if not kinds:
        print(page(outcomes), end="")
    return int(any(outcome.result == "FAILED" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
