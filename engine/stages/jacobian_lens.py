"""The jacobian stage: the matrices of a Jacobian lens, of a cell's model or the one without adapter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor

from engine.errors import DamagedLensError, DataError, EngineError
from engine.models import jacobians
from engine.models.base_model import BaseModel
from engine.models.batching import by_length, padding_id
from engine.models.causal_lm import CausalLm
from engine.models.jacobian_rows import jacobian_rows, positions_read
from engine.models.jacobians import Fitted
from engine.models.lens import Lens, find_lens
from engine.models.lens_files import CheckpointFile
from engine.planning.plan import PlannedCell
from engine.progress import Report, StopRequest
from engine.stages.context import Context
from engine.stages.lens_texts import fitting_texts
from engine.stages.records import checked
from engine.text.targets import Encoded
from specs.tables.jacobian import Jacobian
from store import Coordinate, Family, Variable
from store.backend.location import Place


@frozen(eq=False)
class Sums:
    """The sums of a fit over the texts that it has read."""

    total: Tensor  # [L, D, D] float32: of the texts' Jacobians
    squares: Tensor  # [L] float64: of their squared Frobenius norms
    counts: Tensor  # [2] int64: texts, and their tokens

    @staticmethod
    def nothing(layers: int, width: int, device: torch.device) -> Sums:
        """Give the sums of no text."""
        return Sums(
            torch.zeros(layers, width, width, device=device),
            torch.zeros(layers, dtype=torch.float64, device=device),
            torch.zeros(2, dtype=torch.int64, device=device),
        )

    def as_tensors(self) -> dict[str, Tensor]:
        """Give them by name, as a checkpoint holds them."""
        return {"total": self.total, "squares": self.squares, "counts": self.counts}


def chosen_texts(texts: Sequence[Encoded], settings: Jacobian) -> list[list[int]]:
    """Give the token ids of the first texts with positions that count, cut to `max_tokens`.

    Raises DataError where there is none.
    """
    whole = [(text.prompt + text.completion)[: settings.max_tokens] for text in texts]
    kept = [ids for ids in whole if positions_read(len(ids), settings.skip)]
    if not kept:
        raise DataError(
            f"probe.jacobian.skip: found {settings.skip}, but no text has more than {settings.skip + 1} "
            f"tokens (longest: {max(map(len, whole))}); expected a lower one, or longer texts"
        )
    return kept[: settings.prompts]


def fit(
    lens: Lens,
    texts: Sequence[Sequence[int]],
    settings: Jacobian,
    *,
    batch_size: int,
    padding: int,
    report: Report,
    stop: StopRequest,
    checkpoint: CheckpointFile | None = None,
) -> Fitted:
    """Average the Jacobians of texts, each text alike.

    Gurnee et al. (2026), by the estimator of the lenses that are published: of each text the sum over
    positions t′ ≥ t of ∂h_final[t′] / ∂h_l[t], averaged over t, without the first `skip` positions and the
    last. The same texts and batches give the same bits, also where it goes on from a checkpoint, which is
    written behind every batch. The model is left as it is.
    """
    layers, width = len(lens.layers), lens.width
    kept = checkpoint.read(lens.device) if checkpoint else None
    sums = Sums(**kept) if kept else Sums.nothing(layers, width, lens.device)
    batches, read = by_length([len(ids) for ids in texts], batch_size), 0
    for number, places in enumerate(batches):
        read += len(places)
        if read <= int(sums.counts[0]):
            continue
        several = [texts[place] for place in places]
        for rows, part in jacobian_rows(lens, several, settings.skip, padding):
            stop.check()
            sums.total[:, rows] += part.sum(dim=1)
            sums.squares.add_(part.double().square().sum(dim=(1, 2, 3)))
            report(number * width + rows.stop, len(batches) * width, "")
        if not sums.squares.isfinite().all():
            raise EngineError(
                "probe.lens: the derivatives of the last layer are no finite numbers, so that this model has "
                "no Jacobian lens; expected a model.dtype that holds what the model computes"
            )
        sums.counts.add_(torch.tensor([len(several), sum(map(len, several))], device=lens.device))
        if checkpoint:
            checkpoint.write(sums.as_tensors())
    return Fitted(sums.total / sums.counts[0], sums.squares, sums.counts)


def jacobian_family(layers: int) -> Family:
    """Give the store's layout of what is told of a fit."""
    return Family(
        stage="jacobian",
        coordinates=(
            Coordinate("layer", "layer", list(range(layers)), long_name="layer, 0 = embedding"),
        ),
        variables=(
            Variable(
                "jacobian_norm", ("layer",), "float32", "1", "Frobenius norm of the mean Jacobian over √D"
            ),
            Variable(
                "jacobian_error", ("layer",), "float32", "1",
                "standard error of the mean Jacobian over texts, as a share of it",
            ),
        ),
    )  # fmt: skip


def run(context: Context, cell: PlannedCell, model: CausalLm, base: BaseModel, report: Report) -> None:
    """Fit the cell's Jacobian lens; goes on from its checkpoint."""
    probe, key = context.settings("probe", cell), cell.keys["jacobian"]
    settings = probe.jacobian
    with context.committing("jacobian", key, base) as record:
        lens, home = find_lens(model), context.home("jacobian", key)
        fitted = _saved(context, home, lens.device)
        if fitted is None:
            texts = fitting_texts(context, cell, model, base.tokenizer, "jacobian", settings.max_tokens)
            claim, checkpoint = context.claim("jacobian", key), CheckpointFile.of(home)
            made = fitted = fit(
                lens,
                chosen_texts(texts, settings),
                settings,
                batch_size=probe.batch_size,
                padding=padding_id(base.tokenizer),
                report=checked(report, claim),
                stop=context.stop,
                checkpoint=checkpoint,
            )
            claim.check()
            if not context.ranks.lead(lambda: jacobians.save(home, made)):
                fitted = jacobians.read(home, lens.device) or made
            checkpoint.drop()
        by_layer = {
            "jacobian_norm": fitted.norms.float().cpu().numpy(),
            "jacobian_error": fitted.errors.float().cpu().numpy(),
        }
        with context.sink(jacobian_family(len(fitted.weight)), key, resume=False) as sink:
            sink.append(by_layer)
        texts_read, tokens = fitted.counts.tolist()
        record |= {
            **sink.placement,
            "summary": {
                "jacobian_error": float(by_layer["jacobian_error"].mean()),
                "jacobian_texts": float(texts_read),
                "jacobian_tokens": float(tokens),
            },
        }


def _saved(context: Context, home: Place, device: torch.device) -> Fitted | None:
    """Give the result of a fit that has ended, but was never committed."""
    try:
        return jacobians.read(home, device)
    except DamagedLensError:
        context.put_aside(home, jacobians.FILE)
        return None
