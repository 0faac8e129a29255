"""The lens stage: the translators of a tuned lens, trained for a cell's model or the one without adapter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from engine.errors import DamagedLensError, EngineError
from engine.models import translators
from engine.models.base_model import BaseModel
from engine.models.batching import pad_right, padding_id
from engine.models.causal_lm import CausalLm
from engine.models.lens import Lens, find_lens
from engine.models.translators import Checkpoint, Translators, translated
from engine.planning.plan import PlannedCell
from engine.progress import Report, StopRequest
from engine.stages.context import Context
from engine.stages.lens_texts import fitting_texts
from engine.stages.records import checked
from engine.stages.watched_passes import backend_of
from engine.text.targets import Encoded
from kernels import lens_divergence
from specs.tables.tuned import Tuned
from store import Coordinate, Family, Variable
from store.backend.location import Place

MOMENTUM, LARGEST_NORM = 0.9, 1.0
KEPT_EVERY = 25  # steps from one checkpoint to the next
OPERANDS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TOKENS = 1024  # of one backward pass through all layers


def tune(
    lens: Lens,
    examples: Sequence[Encoded],
    settings: Tuned,
    *,
    batch_size: int,
    padding: int,
    backend: str,
    report: Report,
    stop: StopRequest,
    checkpoint: Checkpoint | None = None,
) -> tuple[Translators, np.ndarray]:
    """Train a translator per layer; give them and the KL per step and layer, [steps, L], in nats.

    Loss: the sum over layers of the mean of KL(final layer ‖ lens of the translated layer) over all tokens of
    prompts and completions (Belrose et al., arXiv 2303.08112), by `kernels.lens_divergence`. Optimiser, as in
    tuned-lens 0.2.0: SGD with Nesterov momentum, its rate times 1 − momentum and falling linearly to 0,
    gradients clipped to norm 1 over all layers. The same examples, settings and seed give the same
    translators, also where it goes on from a checkpoint. The model is left as it is.
    """
    layers = len(lens.layers)
    curve = np.empty((settings.steps, layers), np.float32)
    kept = checkpoint.kept(lens.device) if checkpoint else None
    start = len(kept[2]) if kept else 0
    translators = kept[0] if kept else Translators.identity(layers, lens.width, lens.device)
    parameters = [translators.weight.requires_grad_(), translators.bias.requires_grad_()]
    optimizer = torch.optim.SGD(
        parameters,
        lr=settings.lr * (1 - MOMENTUM),
        momentum=MOMENTUM,
        nesterov=True,
        weight_decay=settings.weight_decay,
    )
    if kept:
        curve[:start] = kept[2]
        for parameter, buffer in zip(parameters, (kept[1].weight, kept[1].bias), strict=True):
            optimizer.state[parameter]["momentum_buffer"] = buffer
    for step, chosen in enumerate(islice(draws(examples, settings), start, settings.steps), start):
        stop.check()
        optimizer.param_groups[0]["lr"] = settings.lr * (1 - MOMENTUM) * (1 - step / settings.steps)
        batches = [chosen[start : start + batch_size] for start in range(0, len(chosen), batch_size)]
        count = sum(map(len, chosen))
        optimizer.zero_grad()
        total = torch.zeros(layers, device=lens.device)
        for batch in batches:
            total += _backward(lens, translators, batch, padding, count, settings, backend)
        curve[step] = total.cpu().numpy()
        if not np.isfinite(curve[step]).all():
            raise EngineError(
                f"probe.tuned.lr: found {settings.lr}, with which the divergence is no number at step "
                f"{step + 1}; expected a lower one, or a model whose logits are finite"
            )
        torch.nn.utils.clip_grad_norm_(parameters, LARGEST_NORM)
        optimizer.step()
        if checkpoint and (step + 1) % KEPT_EVERY == 0:
            buffers = (optimizer.state[parameter]["momentum_buffer"] for parameter in parameters)
            checkpoint.keep(translators, Translators(*buffers), curve[: step + 1])
        report(step + 1, settings.steps, f"KL {curve[step].mean():.3f}")
    return Translators(*(parameter.detach() for parameter in parameters)), curve


def draws(examples: Sequence[Encoded], settings: Tuned) -> Iterator[list[Encoded]]:
    """Yield the examples of step after step, without end: the next ones in an order drawn anew each time."""
    generator = torch.Generator().manual_seed(settings.seed)
    waiting: list[int] = []
    while True:
        chosen: list[Encoded] = []
        while sum(map(len, chosen)) < settings.tokens and len(chosen) < len(examples):
            if not waiting:
                waiting = torch.randperm(len(examples), generator=generator).tolist()
            chosen.append(examples[waiting.pop()])
        yield chosen


def _backward(
    lens: Lens,
    translators: Translators,
    batch: Sequence[Encoded],
    padding: int,
    count: int,
    settings: Tuned,
    backend: str,
) -> Tensor:
    """Add a batch's part of the gradient of the mean over `count` tokens; give its part of the KL, [L]."""
    hidden, final = _streams(lens, batch, padding)
    parameters = (translators.weight, translators.bias)
    total = torch.zeros(len(hidden), device=hidden.device)
    for start in range(0, len(final), TOKENS):
        part = slice(start, start + TOKENS)
        normed = lens.norm(translated(hidden[:, part], *parameters, OPERANDS[settings.precision]))
        kl, slope = lens_divergence(
            normed.detach(),
            final[part],
            lens.unembedding,
            rounded_slopes=settings.precision != "float32",
            backend=backend,
        )
        total += kl.sum(dim=1) / count
        gradients = torch.autograd.grad(normed, parameters, (slope / count).to(normed.dtype))
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
    return total


@torch.no_grad()
def _streams(lens: Lens, batch: Sequence[Encoded], padding: int) -> tuple[Tensor, Tensor]:
    """Run the model: the residual streams [L, N, D] of all tokens, and the normed last one [N, D]."""
    ids, mask = pad_right([example.prompt + example.completion for example in batch], padding, lens.device)
    everywhere = torch.arange(ids.shape[1], device=lens.device).expand(ids.shape)
    with lens.watching(list(range(len(lens.layers))), everywhere) as caught:
        last = lens.last_hidden(ids, lens.needed(mask))
    kept = mask.bool()
    return torch.stack([stream[kept] for stream in caught]), last[kept]


def lens_family(steps: int, layers: int) -> Family:
    """Give the store's layout of the curves of a lens's training."""
    meaning = "mean KL divergence of the translated layer from the final layer, KL(final || layer)"
    return Family(
        stage="lens",
        coordinates=(
            Coordinate("step", "step", list(range(1, steps + 1)), long_name="optimiser step"),
            Coordinate("layer", "layer", list(range(layers)), long_name="layer, 0 = embedding"),
        ),
        variables=(Variable("translator_kl", ("step", "layer"), "float32", "nat", meaning),),
    )


def run(context: Context, cell: PlannedCell, model: CausalLm, base: BaseModel, report: Report) -> None:
    """Train the translators of the cell's tuned lens; goes on from its checkpoint."""
    settings, key = context.settings("probe", cell), cell.keys["lens"]
    with context.committing("lens", key, base) as record:
        examples = fitting_texts(context, cell, model, base.tokenizer, "lens")
        lens, home = find_lens(model), context.home("lens", key)
        saved = _saved_lens(context, home, lens.device)
        if saved is None:
            claim, checkpoint = context.claim("lens", key), Checkpoint.of(home)
            saved = tune(
                lens,
                examples,
                settings.tuned,
                batch_size=settings.batch_size,
                padding=padding_id(base.tokenizer),
                backend=backend_of(settings, "lens_divergence"),
                report=checked(report, claim),
                stop=context.stop,
                checkpoint=checkpoint,
            )
            claim.check()
            trained = saved
            if not context.ranks.lead(lambda: translators.save(home, *trained)):
                saved = translators.read(home, lens.device) or saved
            checkpoint.drop()
        curve = saved[1]
        with context.sink(lens_family(*curve.shape), key, resume=False) as sink:
            sink.append({"translator_kl": curve})
        record |= {
            **sink.placement,
            "summary": {
                "lens_kl": float(curve[-1].mean()),
                "lens_kl_untrained": float(curve[0].mean()),
                "lens_examples": float(len(examples)),
            },
            "units": {"lens_kl": "nat", "lens_kl_untrained": "nat"},
        }


def _saved_lens(context: Context, home: Place, device: torch.device) -> tuple[Translators, np.ndarray] | None:
    """Give the translators of a training that has ended, but was never committed."""
    try:
        return translators.read(home, device)
    except DamagedLensError:
        context.put_aside(home, translators.FILE)
        return None
