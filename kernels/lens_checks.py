"""Drawn problems of production tiles, and how far a backend is from the float64 reference on them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from kernels.backends import LENS, OPERATIONS, get_backend
from kernels.lens_reference import whole_logits
from kernels.lens_result import LensStatistics
from kernels.unembedding import Unembedding

LIMIT = 1e-4  # nats; what each backend promises for logits up to 100
NUMBERS = (
    "logsumexp", "entropy", "max_prob", "top_logprobs", "watch_logprob", "watch_mass", "watch_entropy",
    "kl_final", "js_final",
)  # fmt: skip
LAYERS, POSITIONS, WIDTH = 4, 40, 512  # rows enough for the widest tiles
VOCABULARY, PADDING = 5003, 13
WATCHED, TOP = (0, 7, 7, 300, 5002), 5
CPU = torch.device("cpu")


def largest_error(backend: str, device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """Give a backend's largest error, in nats, with operands of a type, and what is off by so much.

    Infinite where ranks or top tokens are out of order, or a number is none. It is called whether it can
    serve or not, and may raise whatever a driver or a compiler says.
    """
    errors = [*_of_ties(backend, device, dtype), *_of_statistics(backend, device, dtype)]
    if backend in OPERATIONS["lens_divergence"]:
        errors += _of_divergence(backend, device, dtype)
    return max(errors)


def _of_statistics(backend: str, device: torch.device, dtype: torch.dtype) -> Iterator[tuple[float, str]]:
    """Real-valued operands: a product that is rounded on its way shows."""
    hidden, weight, final = drawn(dtype)
    ours = _statistics(backend, device, hidden, weight, final)
    truth, logits = _true_statistics(dtype)
    yield from _differences(ours, truth)
    if not _in_order(ours, logits):
        yield math.inf, "the order of tokens"


@cache
def _true_statistics(dtype: torch.dtype) -> tuple[LensStatistics, Tensor]:
    """Give the float64 statistics of the drawn rows, and their logits [R, V]."""
    hidden, weight, final = drawn(dtype)
    return _statistics("reference", CPU, hidden, weight, final), whole_logits(hidden, _head(weight))


def _of_ties(backend: str, device: torch.device, dtype: torch.dtype) -> Iterator[tuple[float, str]]:
    """Whole numbers make exact products with many ties, so ranks must agree to the last one."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (
        torch.randint(-2, 3, shape, generator=generator).to(dtype)
        for shape in ((48, 96), (VOCABULARY + PADDING, 96))
    )
    final = torch.arange(48) % 12 + 36
    ours = _statistics(backend, device, hidden, weight, final)
    truth = _statistics("reference", CPU, hidden, weight, final)
    yield from _differences(ours, truth)
    if not all(
        torch.equal(getattr(ours, name).cpu(), getattr(truth, name)) for name in ("watch_rank", "top_ids")
    ):
        yield math.inf, "the order of equal logits"


def _of_divergence(backend: str, device: torch.device, dtype: torch.dtype) -> Iterator[tuple[float, str]]:
    ours, truth = _divergence(backend, device, dtype), _true_divergence(dtype)
    reach = 10 * float(drawn(dtype)[1].abs().max())  # the gradient's bound is ten times as wide, by max |w|
    yield _off(ours[0], truth[0]), "lens_divergence"
    yield _off(ours[1], truth[1]) / reach, "the gradient of lens_divergence"


@cache
def _true_divergence(dtype: torch.dtype) -> list[Tensor]:
    return _divergence("reference", CPU, dtype)


def _divergence(backend: str, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Give KL [L, N] and its gradient [L, N, D]."""
    hidden, weight, _ = drawn(dtype)
    rows = hidden.view(POSITIONS, LAYERS, WIDTH).transpose(0, 1).contiguous().to(device)
    compute = get_backend(backend, "lens_divergence")
    return [part.cpu().double() for part in compute(rows, rows[-1], _head(weight.to(device)))]


@cache
def drawn(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Draw rows [R, D], the layers of a position side by side and alike, a weight, and the final rows [R].

    Logits go up to some 50.
    """
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    spread = torch.linspace(0.5, 10, POSITIONS)[:, None, None]
    rows = spread * (normal(POSITIONS, 1, WIDTH) + 0.3 * normal(POSITIONS, LAYERS, WIDTH))
    weight = normal(VOCABULARY + PADDING, WIDTH) / WIDTH**0.5
    final = torch.arange(POSITIONS * LAYERS) // LAYERS * LAYERS + LAYERS - 1
    return rows.view(-1, WIDTH).to(dtype), weight.to(dtype), final


def _head(weight: Tensor) -> Unembedding:
    return Unembedding(weight, vocab_size=VOCABULARY)


def _statistics(
    backend: str, device: torch.device, hidden: Tensor, weight: Tensor, final: Tensor
) -> LensStatistics:
    watched = torch.tensor(WATCHED, device=device)
    compute = get_backend(backend, LENS)
    statistics: LensStatistics = compute(
        hidden.to(device), _head(weight.to(device)), watched, TOP, final.to(device)
    )
    return statistics


def _differences(ours: LensStatistics, truth: LensStatistics) -> Iterator[tuple[float, str]]:
    for name in NUMBERS:
        yield _off(getattr(ours, name).cpu().double(), getattr(truth, name).double()), name


def _off(ours: Tensor, truth: Tensor) -> float:
    return float((ours - truth).abs().nan_to_num(nan=math.inf).max())


def _in_order(ours: LensStatistics, x: Tensor) -> bool:
    """Tell whether ranks and top tokens are those of the logits [R, V], but for gaps within the limit."""
    watched = x[:, list(WATCHED)]
    least = torch.stack([(x > value[:, None] + LIMIT).sum(dim=1) for value in watched.T], dim=1)
    most = torch.stack([(x >= value[:, None] - LIMIT).sum(dim=1) for value in watched.T], dim=1) - 1
    ranks, top = ours.watch_rank.cpu(), ours.top_ids.cpu()
    values = x.gather(1, top.clamp(0, x.shape[1] - 1))
    return bool(
        ((least <= ranks) & (ranks <= most)).all()
        and (top.sort(dim=1).values.diff(dim=1) > 0).all()
        and ((values - x.topk(TOP, dim=1).values).abs() <= LIMIT).all()
    )
