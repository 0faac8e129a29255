"""The C core as a program for another CPU: problems and answers, as tests/kernels/lens_answers.c has them."""

from __future__ import annotations

import math
import struct
import subprocess
from collections.abc import Iterator, Sequence

import torch
from lens_problems import arguments
from torch import Tensor

from kernels import LensStatistics, Unembedding

FLOAT32, WIDENED, BFLOAT16 = range(3)  # as lens.h numbers them


def evaluated(program: Sequence[str], function: int, x: Tensor) -> dict[str, Tensor]:
    """Give a function of lens_evaluate at x [n], by path."""
    answers = _Answers(_ask(program, struct.pack("7q", -1 - function, len(x), *[0] * 5) + _bytes(x)))
    return {name: answers.take(torch.float32, len(x)) for name in answers.names()}


def solved(program: Sequence[str], problem: dict[str, object]) -> dict[str, tuple[LensStatistics, Tensor]]:
    """Give the statistics, and the logits [R, V], of a problem whose rows watch the same tokens, by path.

    bfloat16 rows under a bfloat16 weight are multiplied as such where a path can: then it answers once more,
    and that answer stays.
    """
    hidden, head, watched, top_k, final = arguments(problem)
    assert isinstance(head, Unembedding)
    ids, places = torch.unique(watched, return_inverse=True)
    rows, vocabulary = len(hidden), len(head.tokens)
    kept = min(max(top_k, 1), vocabulary)
    answers = _Answers(raw_answers(program, problem))
    found = {}
    for name in answers.names():
        logits = answers.take(torch.float32, rows, vocabulary)
        scalars = {
            field: answers.take(torch.float32, rows)
            for field in (
                "logsumexp",
                "entropy",
                "max_prob",
                "watch_mass",
                "watch_entropy",
                "kl_final",
                "js_final",
            )
        }
        if final is None:
            scalars |= {"kl_final": None, "js_final": None}
        top = answers.take(torch.int64, rows, kept), answers.take(torch.float32, rows, kept)
        rank, logprob = answers.take(torch.int64, rows, len(ids)), answers.take(torch.float32, rows, len(ids))
        statistics = LensStatistics(
            **scalars,
            top_ids=torch.nn.functional.pad(top[0], (0, top_k - kept), value=-1),
            top_logprobs=torch.nn.functional.pad(top[1], (0, top_k - kept), value=math.nan),
            watch_rank=rank[:, places],
            watch_logprob=logprob[:, places],
            nonfinite_rows=int(torch.isnan(scalars["logsumexp"]).sum()),
            backend="c",
        )
        found[name] = statistics, logits
    return found


def raw_answers(program: Sequence[str], problem: dict[str, object]) -> bytes:
    """Give all bytes that a program answers to a problem."""
    hidden, head, watched, top_k, final = arguments(problem)
    assert isinstance(head, Unembedding)
    halves = head.weight.dtype == torch.bfloat16
    ids = torch.unique(watched)
    rows, (vocabulary, width) = len(hidden), head.tokens.shape
    kept = min(max(top_k, 1), vocabulary)
    asked = b""
    for kind in (WIDENED, BFLOAT16) if halves and hidden.dtype == torch.bfloat16 else (halves * WIDENED,):
        bias = head.token_bias is not None
        asked += struct.pack(
            "7q2f", kind, rows, width, vocabulary, len(ids), kept, bias, head.scale, head.softcap or 0
        )
        asked += _bytes(head.tokens) + _bytes(hidden if kind == BFLOAT16 else hidden.float())
        asked += _bytes(head.token_bias.float()) if head.token_bias is not None else b""
        asked += _bytes(ids) + _bytes(torch.arange(rows) if final is None else final)
    return _ask(program, asked)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


class _Answers:
    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def names(self) -> Iterator[str]:
        while self.place < len(self.data):
            yield self._next(16).rstrip(b"\0").decode()

    def take(self, dtype: torch.dtype, *shape: int) -> Tensor:
        data = self._next(math.prod(shape) * dtype.itemsize)
        return (
            torch.frombuffer(bytearray(data), dtype=dtype).view(shape)
            if data
            else torch.empty(shape, dtype=dtype)
        )

    def _next(self, size: int) -> bytes:
        self.place += size
        assert self.place <= len(self.data)
        return self.data[self.place - size : self.place]


def _ask(program: Sequence[str], asked: bytes) -> bytes:
    ran = subprocess.run([*program], input=asked, capture_output=True)
    assert ran.returncode == 0, ran.stderr.decode()
    return ran.stdout
