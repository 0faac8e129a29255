"""The torch backend: statistics over vocabulary tiles, on any device, in bounded scratch memory.

Two passes over the same tiles. The first gives the normaliser, the entropy, the top tokens and the watched
logits; the second, which needs those, counts ranks and sums the divergences. Both compute a tile by the same
product of the same shapes, so a watched logit is the very number that the second pass compares with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from attrs import define, frozen
from torch import Tensor

from kernels.lens_result import LensStatistics
from kernels.product import product
from kernels.unembedding import Unembedding
from kernels.watched_ids import by_row, first_of_each

TILE = 8192  # vocabulary entries per tile
ROWS = 1024  # rows per block: a float32 tile of logits takes 32 MiB


@frozen(eq=False)
class TiledProjection:
    """Lens logits, one vocabulary tile at a time."""

    unembedding: Unembedding
    tile: int

    def tiles(self) -> Iterator[tuple[int, int]]:
        """Yield the (start, end) of every tile, in vocabulary order."""
        vocabulary = self.unembedding.vocab_size
        for start in range(0, vocabulary, self.tile):
            yield start, min(start + self.tile, vocabulary)

    def logits(self, hidden: Tensor, start: int, end: int) -> Tensor:
        """Give the logits [r, end - start] of a tile, in float32."""
        return self.unembedding.finish(product(hidden, self.unembedding.weight[start:end]), start)


def torch_tiled(
    hidden: Tensor,
    unembedding: Unembedding,
    watch_ids: Tensor,
    top_k: int,
    final_rows: Tensor | None,
    *,
    tile: int = TILE,
    rows: int = ROWS,
) -> LensStatistics:
    """Compute the statistics block by block of rows; scratch is O(rows × tile), whatever R and V are."""
    projection = TiledProjection(unembedding, tile)
    own = watch_ids.ndim == 2
    out = _Output.empty(hidden, watch_ids.shape[-1], top_k, divergences=final_rows is not None)
    # Rows that refer to one final row stand together, so that a block has few final rows to compute.
    order = (
        torch.arange(len(hidden), device=hidden.device)
        if final_rows is None
        else torch.argsort(final_rows, stable=True)
    )
    for block in torch.split(order, rows):
        ids = watch_ids[block] if own else watch_ids
        first = first_pass(hidden[block], projection, ids, top_k)
        out.put(block, first, ids)
        out.watch_rank[block] = _ranks(hidden[block], projection, ids, first.watched)
        if final_rows is not None:
            finals, place = torch.unique(final_rows[block], return_inverse=True)
            out.put_divergences(block, *_divergences(hidden, block, finals, place, projection, first))
            final = final_rows[block] == block  # a distribution does not diverge from itself, not by rounding
            out.kl_final[block[final]] = out.js_final[block[final]] = 0.0
    return out.result(final_rows)


@define(eq=False)
class FirstPass:
    """Running values of the first pass over the tiles, for r rows; sums in float64."""

    maximum: Tensor  # [r]
    total: Tensor  # [r] Σ exp(x − maximum)
    weighted: Tensor  # [r] Σ exp(x − maximum) (x − maximum)
    finite: Tensor  # [r]
    top_values: Tensor  # [r, k]
    top_ids: Tensor  # [r, k]
    watched: Tensor  # [r, J]

    @property
    def logsumexp(self) -> Tensor:
        """Log Σ exp x, [r]."""
        return self.maximum + self.total.log()

    def logprobs(self, x: Tensor) -> Tensor:
        """Give log-probabilities [r, t] of a tile of logits, in float32.

        The maximum goes off first: it is a logit itself, so large logits lose no digits to it.
        """
        return (x - self.maximum[:, None].float()) - self.total.log()[:, None].float()

    @property
    def entropy(self) -> Tensor:
        """Entropy, [r]."""
        return (self.total.log() - self.weighted / self.total).clamp_min(0)


def first_pass(hidden: Tensor, projection: TiledProjection, watch_ids: Tensor, top_k: int) -> FirstPass:
    """Run rows [r, D] over all tiles once: normaliser, entropy, top tokens and watched logits.

    watch_ids: [J] or [r, J].
    """
    count, device = len(hidden), hidden.device
    ids = by_row(watch_ids, count)
    zeros = torch.zeros(count, dtype=torch.float64, device=device)
    state = FirstPass(
        maximum=torch.full_like(zeros, -math.inf),
        total=zeros,
        weighted=zeros,
        finite=torch.ones(count, dtype=torch.bool, device=device),
        top_values=torch.empty((count, 0), device=device),
        top_ids=torch.empty((count, 0), dtype=torch.int64, device=device),
        watched=torch.zeros(ids.shape, device=device),
    )
    for start, end in projection.tiles():
        x = projection.logits(hidden, start, end)
        inside = (ids >= start) & (ids < end)
        logits = x.gather(1, (ids - start).clamp(0, end - start - 1))
        state.watched = torch.where(inside, logits, state.watched)
        state.top_values, state.top_ids = _merge_top(state, x, start, top_k)
        top = x.amax(dim=1)
        state.finite &= torch.isfinite(top) & torch.isfinite(x.amin(dim=1))
        _accumulate(state, x, top)
    return state


def _accumulate(state: FirstPass, x: Tensor, top: Tensor) -> None:
    """Merge a tile into the sums by the online softmax (Milakov & Gimelshein, arXiv 1805.02867)."""
    shifted = x - top[:, None]
    exp = shifted.exp()
    total = exp.sum(dim=1, dtype=torch.float64)
    weighted = (exp * shifted).sum(dim=1, dtype=torch.float64)
    new = torch.maximum(state.maximum, top.double())
    old_shift, tile_shift = state.maximum - new, top.double() - new
    # Before the first tile the maximum is −inf and the sums are 0; 0 · −inf must stay 0.
    old_shift = torch.where(state.total == 0, 0.0, old_shift)
    old, tile = old_shift.exp(), tile_shift.exp()
    state.weighted = old * (state.weighted + old_shift * state.total) + tile * (weighted + tile_shift * total)
    state.total = old * state.total + tile * total
    state.maximum = new


def _merge_top(state: FirstPass, x: Tensor, start: int, top_k: int) -> tuple[Tensor, Tensor]:
    """Merge a tile's top entries into those of the tiles before it, ties by the lower token id."""
    values, ids = exact_top(x, min(top_k, x.shape[1]))
    values = torch.cat([state.top_values, values], dim=1)
    ids = torch.cat([state.top_ids, ids + start], dim=1)
    # Earlier tiles have the lower ids and come first, so a stable sort breaks ties rightly.
    values, order = torch.sort(values, dim=1, descending=True, stable=True)
    return values[:, :top_k], ids.gather(1, order)[:, :top_k]


def exact_top(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Give the k largest entries of each row of x [r, t] and their columns, ties by the lower column.

    `torch.topk` picks any of several equal entries, so rows where the k-th value occurs again beyond the
    chosen ones are sorted whole, stably.
    """
    if k == 0:
        return x[:, :0], torch.empty((len(x), 0), dtype=torch.int64, device=x.device)
    columns = torch.topk(x, k, dim=1).indices.sort(dim=1).values
    values, order = torch.sort(x.gather(1, columns), dim=1, descending=True, stable=True)
    columns = columns.gather(1, order)
    ambiguous = (x >= values[:, -1:]).sum(dim=1) > k
    if ambiguous.any():
        sorted_values, sorted_columns = torch.sort(x[ambiguous], dim=1, descending=True, stable=True)
        values[ambiguous], columns[ambiguous] = sorted_values[:, :k], sorted_columns[:, :k]
    return values, columns


def _ranks(hidden: Tensor, projection: TiledProjection, watch_ids: Tensor, watched: Tensor) -> Tensor:
    """Count, for every watched token, the entries before it in the strict order: [r, J] int64."""
    ranks = torch.zeros(watched.shape, dtype=torch.int64, device=hidden.device)
    if watched.shape[1] == 0:
        return ranks
    for start, end in projection.tiles():
        x = projection.logits(hidden, start, end)
        columns = torch.arange(start, end, device=hidden.device)
        for place, tokens in enumerate(watch_ids.tolist() if watch_ids.ndim == 1 else watch_ids.T):
            logit = watched[:, place, None]
            if watch_ids.ndim == 1:
                equal = x[:, : max(0, min(tokens, end) - start)] == logit
            else:
                equal = (x == logit) & (columns < tokens[:, None])
            ranks[:, place] += (x > logit).sum(dim=1) + equal.sum(dim=1)
    return ranks


def _divergences(
    hidden: Tensor,
    block: Tensor,
    finals: Tensor,
    place: Tensor,
    projection: TiledProjection,
    first: FirstPass,
) -> tuple[Tensor, Tensor]:
    """Give (KL(final ‖ row), JS(final, row)) for each row of a block: [r] float64, nats."""
    reference = first_pass(hidden[finals], projection, finals[:0], 0)
    kl = torch.zeros(len(block), dtype=torch.float64, device=hidden.device)
    js = torch.zeros_like(kl)
    for start, end in projection.tiles():
        row = first.logprobs(projection.logits(hidden[block], start, end))
        final = reference.logprobs(projection.logits(hidden[finals], start, end))[place]
        p, q = final.exp(), row.exp()
        mixture = torch.logaddexp(final, row) - math.log(2)
        kl += (p * (final - row)).sum(dim=1, dtype=torch.float64)
        js += 0.5 * (p * (final - mixture) + q * (row - mixture)).sum(dim=1, dtype=torch.float64)
    broken = ~reference.finite[place]
    return (
        kl.clamp_min(0).masked_fill(broken, math.nan),
        js.clamp_min(0).masked_fill(broken, math.nan),
    )


@define(eq=False)
class _Output:
    """The result's tensors, filled block by block."""

    values: dict[str, Tensor]
    finite: Tensor
    top_ids: Tensor
    watch_rank: Tensor
    kl_final: Tensor
    js_final: Tensor

    @staticmethod
    def empty(hidden: Tensor, watched: int, top_k: int, *, divergences: bool) -> _Output:
        rows, device = len(hidden), hidden.device

        def floats(*shape: int) -> Tensor:
            return torch.full((rows, *shape), math.nan, device=device)

        scalars = ("logsumexp", "entropy", "max_prob", "watch_mass", "watch_entropy")
        return _Output(
            values={
                **{name: floats() for name in scalars},
                "top_logprobs": floats(top_k),
                "watch_logprob": floats(watched),
            },
            finite=torch.ones(rows, dtype=torch.bool, device=device),
            top_ids=torch.full((rows, top_k), -1, dtype=torch.int64, device=device),
            watch_rank=torch.full((rows, watched), -1, dtype=torch.int64, device=device),
            kl_final=floats(),
            js_final=floats(),
        )

    def put(self, block: Tensor, first: FirstPass, watch_ids: Tensor) -> None:
        lse = first.logsumexp
        logprobs = first.watched.double() - lse[:, None]
        once = by_row(first_of_each(watch_ids), len(lse))
        inside = logprobs.masked_fill(~once, -math.inf)
        within = torch.log_softmax(inside, dim=1).masked_fill(~once, 0.0)  # a repeat counts as 1 log 1
        kept = first.top_ids.shape[1]
        self.finite[block] = first.finite
        self.top_ids[block, :kept] = first.top_ids
        self.values["logsumexp"][block] = lse.float()
        self.values["entropy"][block] = first.entropy.float()
        self.values["max_prob"][block] = (first.maximum - lse).exp().float()
        self.values["top_logprobs"][block, :kept] = (first.top_values.double() - lse[:, None]).float()
        self.values["watch_logprob"][block] = logprobs.float()
        self.values["watch_mass"][block] = inside.exp().sum(dim=1).float()
        self.values["watch_entropy"][block] = -(within.exp() * within).sum(dim=1).float()

    def put_divergences(self, block: Tensor, kl: Tensor, js: Tensor) -> None:
        self.kl_final[block], self.js_final[block] = kl.float(), js.float()

    def result(self, final_rows: Tensor | None) -> LensStatistics:
        broken = ~self.finite
        for value in (*self.values.values(), self.kl_final, self.js_final):
            value[broken] = math.nan
        self.top_ids[broken] = -1
        self.watch_rank[broken] = -1
        return LensStatistics(
            **self.values,
            top_ids=self.top_ids,
            watch_rank=self.watch_rank,
            kl_final=None if final_rows is None else self.kl_final,
            js_final=None if final_rows is None else self.js_final,
            nonfinite_rows=int(broken.sum()),
            backend="torch",
        )
