"""Everything that the probe core is compared with, as functions of the same data."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from benchmarks.shapes import TOP
from kernels import LensStatistics, Unembedding, available_backends, lens_statistics
from kernels.lens_c_weights import PackedUnembedding, pack

BARE = "bare product"
CHUNK = 8192


def ours(
    hidden: Tensor, weight: Tensor, watched: Tensor, final: Tensor
) -> dict[str, Callable[[], LensStatistics]]:
    """Every backend of the probe core that can run here, without and with divergences from the final row."""
    head: Unembedding = Unembedding(weight)
    found: dict[str, Callable[[], LensStatistics]] = {}
    for backend in available_backends():
        if backend == "reference":
            continue
        used: Unembedding | PackedUnembedding = pack(head) if backend == "c" else head

        def run(
            rows: Tensor | None,
            backend: str = backend,
            used: Unembedding | PackedUnembedding = used,
        ) -> LensStatistics:
            return lens_statistics(
                hidden, used, watch_ids=watched, top_k=TOP, final_rows=rows, backend=backend
            )

        found[backend] = lambda run=run: run(None)
        found[f"{backend} + KL, JS"] = lambda run=run: run(final)
    return found


def bare(hidden: Tensor, weight: Tensor) -> Tensor:
    """The logits alone, materialised, in the weight's type."""
    return linear(hidden, weight)


def eager(hidden: Tensor, weight: Tensor, watched: Tensor) -> tuple[Tensor, ...]:
    """The same statistics as one writes them first, without divergences."""
    logits = linear(hidden, weight).float()
    logp = torch.log_softmax(logits, dim=-1)
    entropy = -(logp.exp() * logp).sum(dim=-1)
    chosen = logp[:, watched]
    rank = torch.stack([(logp > chosen[:, j, None]).sum(dim=-1) for j in range(len(watched))], dim=1)
    return entropy, chosen, rank, *torch.topk(logp, TOP, dim=-1)


def chunked(hidden: Tensor, weight: Tensor, watched: Tensor) -> tuple[Tensor, ...]:
    """Online sums over vocabulary chunks: logsumexp, entropy, ranks and top tokens."""
    chosen = (hidden.float()[:, None, :] * weight[watched].float()).sum(dim=-1)
    maximum = torch.full((len(hidden),), -torch.inf)
    total, weighted = torch.zeros(2, len(hidden))
    rank = torch.zeros(chosen.shape, dtype=torch.int64)
    best = torch.full((len(hidden), TOP), -torch.inf)
    for part in weight.split(CHUNK):
        x = linear(hidden, part).float()
        new = torch.maximum(maximum, x.amax(dim=-1))
        exponential = (x - new[:, None]).exp()
        factor = (maximum - new).exp()
        total = factor * total + exponential.sum(dim=-1)
        weighted = factor * weighted + (exponential * x).sum(dim=-1)
        maximum = new
        for j in range(len(watched)):
            rank[:, j] += (x > chosen[:, j, None]).sum(dim=-1)
        best = torch.cat([best, torch.topk(x, TOP, dim=-1).values], dim=-1).topk(TOP, dim=-1).values
    logsumexp = maximum + total.log()
    return logsumexp, logsumexp - weighted / total, rank, best


def tuned_lens_operations(hidden: Tensor, weight: Tensor, watched: Tensor) -> tuple[object, ...]:
    """What tuned-lens 0.2.0 computes for one target: log-probabilities in NumPy, entropy, rank by sorts."""
    logp = linear(hidden, weight).float().log_softmax(dim=-1).numpy()
    entropy = -np.sum(np.exp(logp) * logp, axis=-1)
    ranks = np.argsort(np.argsort(-logp, axis=-1), axis=-1) + 1
    return entropy, ranks[:, int(watched[0])], np.exp(logp).max(axis=-1)


def entropy_profiler_operations(hidden: Tensor, weight: Tensor) -> Tensor:
    """What entropy-profiler 0.2.1 computes: probabilities, then −Σ p log(p + 1e-15); the entropy alone."""
    p = torch.softmax(linear(hidden, weight).float(), dim=-1)
    return -(p * torch.log(p + 1e-15)).sum(dim=-1)


def others(hidden: Tensor, weight: Tensor, watched: Tensor, *, slow: bool) -> dict[str, Callable[[], object]]:
    """Other ways to the same figures; the slow ones only where asked for."""
    found: dict[str, Callable[[], object]] = {
        "eager": lambda: eager(hidden, weight, watched),
        "eager float32": lambda: eager(hidden.float(), weight.float(), watched),
        "vocabulary chunks": lambda: chunked(hidden, weight, watched),
        "entropy-profiler (its operations)": lambda: entropy_profiler_operations(hidden, weight),
    }
    if weight.dtype == torch.float32:
        del found["eager float32"]
    if slow:
        compiled = torch.compile(eager)
        found["torch.compile of eager"] = lambda: compiled(hidden, weight, watched)
        found["tuned-lens (its operations)"] = lambda: tuned_lens_operations(hidden, weight, watched)
    return found
