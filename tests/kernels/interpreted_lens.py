"""The Triton lens kernels in Triton's interpreter; collected by `test_triton.py`, not by itself."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lens_problems import arguments, assert_close, problems

from kernels import LensStatistics, Unembedding, available_backends, lens_statistics
from kernels.gpu.lens import Launch, triton_backend
from kernels.gpu.lens_packing import pack, pack_watched
from kernels.gpu.lens_tiles import Tile
from kernels.gpu.lens_tuning import tune
from kernels.lens_reference import statistics_from_logits

TILES = [Tile(16, 64, 16, 4, 2), Tile(16, 128, 32, 4, 2, pieces=2, group=1)]


def interpreted(problem: dict[str, object], tile: Tile, *, tma: bool = False) -> LensStatistics:
    return triton_backend(
        *arguments(problem),
        launch=Launch(tile, tile, tma),
    )


@settings(max_examples=16, deadline=None)
@given(problem=problems(), tile=st.sampled_from(TILES), tma=st.booleans())
def test_agrees_with_the_reference(problem: dict[str, object], tile: Tile, tma: bool) -> None:
    assert_close(interpreted(problem, tile, tma=tma), lens_statistics(**problem, backend="reference"))


@settings(max_examples=6, deadline=None)
@given(problem=problems(), tile=st.sampled_from(TILES))
def test_ranks_and_top_tokens_are_those_of_the_kernels_own_logits(
    problem: dict[str, object], tile: Tile
) -> None:
    """Watching the whole vocabulary gives the kernel's own logits, up to a constant that changes no order."""
    head = problem["unembedding"]
    every = {**problem, "watch_ids": list(range(head.vocab_size)), "top_k": 0, "final_rows": None}
    logits = own_logits(interpreted(every, tile))
    ours = interpreted(problem, tile)
    watched = torch.tensor(problem["watch_ids"], dtype=torch.int64)
    truth = statistics_from_logits(logits, watched, problem["top_k"])
    assert torch.equal(ours.watch_rank, truth.watch_rank)
    assert torch.equal(ours.top_ids, truth.top_ids)


def own_logits(statistics: LensStatistics) -> torch.Tensor:
    """Give numbers [R, V] in the order of the ranks; every rank must occur once."""
    ranks = statistics.watch_rank
    broken = (ranks < 0).any(dim=1)
    expected = torch.arange(ranks.shape[1]).expand_as(ranks)
    assert torch.equal(ranks.sort(dim=1).values[~broken], expected[~broken])
    return torch.where(broken[:, None], math.nan, -ranks.double())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_are_summed_in_float32(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(5, 40, generator=generator).to(dtype)
    head = Unembedding(torch.randn(300, 40, generator=generator).to(dtype))
    problem = {"hidden": hidden, "unembedding": head, "watch_ids": [7], "top_k": 3, "final_rows": [4] * 5}
    assert_close(interpreted(problem, TILES[1]), lens_statistics(**problem, backend="reference"))


@pytest.mark.parametrize("rows", [0, 1, 16, 17, 33])
@pytest.mark.parametrize("vocabulary", [1, 64, 65, 200])
def test_sizes_around_a_tile(rows: int, vocabulary: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, 20, generator=generator)
    head = Unembedding(torch.randn(vocabulary, 20, generator=generator))
    problem = {"hidden": hidden, "unembedding": head, "watch_ids": [vocabulary - 1, 0], "top_k": 3}
    problem["final_rows"] = [row // 5 * 5 for row in range(rows)]
    ours, truth = interpreted(problem, TILES[0]), lens_statistics(**problem, backend="reference")
    assert_close(ours, truth)
    assert torch.equal(ours.watch_rank, truth.watch_rank)


def test_equal_logits_rank_by_token_id() -> None:
    problem = {"hidden": torch.ones(2, 4), "unembedding": Unembedding(torch.zeros(150, 4)), "top_k": 3}
    ours = interpreted(problem | {"watch_ids": [0, 70, 149], "final_rows": None}, TILES[0])
    assert ours.watch_rank.tolist() == [[0, 70, 149]] * 2
    by_row = [[0, 63, 70], [149, 64, 64]]
    assert (
        interpreted(problem | {"watch_ids": by_row, "final_rows": None}, TILES[0]).watch_rank.tolist()
        == by_row
    )
    assert ours.top_ids.tolist() == [[0, 1, 2]] * 2


def test_infinite_logits_of_either_sign_are_counted() -> None:
    bias = torch.zeros(150)
    bias[140] = -math.inf
    head = Unembedding(torch.zeros(150, 4), bias=bias)
    problem = {"hidden": torch.ones(2, 4), "unembedding": head, "watch_ids": [3], "top_k": 1}
    ours = interpreted(problem | {"final_rows": [1, 1]}, TILES[0])
    assert ours.nonfinite_rows == 2 and ours.watch_rank.eq(-1).all() and ours.kl_final.isnan().all()


def test_a_long_list_of_top_tokens_is_left_to_torch() -> None:
    hidden, head = torch.ones(2, 4), Unembedding(torch.zeros(150, 4))
    assert lens_statistics(hidden, head, top_k=32, backend="triton").backend == "triton"
    assert lens_statistics(hidden, head, top_k=33, backend="triton").backend == "torch"


def test_it_is_chosen_by_name_and_listed() -> None:
    assert "triton" in available_backends()
    ours = lens_statistics(torch.ones(1, 4), Unembedding(torch.zeros(9, 4)), backend="triton")
    assert ours.backend == "triton" and ours.entropy.item() == pytest.approx(math.log(9))


def test_tuning_takes_the_fastest_tile_of_each_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([2.0, 1.0, 1.0, 2.0])

    def bench(run: Callable[[], object], quantiles: list[float]) -> float:
        run()
        return next(times)

    monkeypatch.setattr("kernels.gpu.lens_tuning.candidates", lambda *_: iter(TILES))
    monkeypatch.setattr("kernels.gpu.lens_tuning.do_bench", bench)
    found = tune(torch.ones(3, 16), Unembedding(torch.zeros(70, 16)), watched=2)
    assert found == Launch(sums=TILES[1], divergences=TILES[0])


@settings(max_examples=100, deadline=None)
@given(
    ids=st.lists(st.lists(st.integers(0, 99), min_size=3, max_size=3), min_size=1, max_size=40),
    vocab=st.sampled_from([8, 64]),
    block=st.sampled_from([2, 16]),
)
def test_packed_tokens_lie_in_the_vocabulary_tile_of_their_row_tile(
    ids: list[list[int]], vocab: int, block: int
) -> None:
    places, spans = pack_watched(torch.tensor(ids), vocab, block)
    assert sorted(places[places >= 0].tolist()) == list(range(3 * len(ids)))
    tokens = torch.tensor(ids).flatten()
    for slot, place in enumerate(places.tolist()):
        first, end = spans[slot // block].tolist()
        assert end == first + 1 and (place < 0 or first <= tokens[place] < first + vocab)
    assert len(places) <= 3 * len(ids) + block * len(set((tokens // vocab).tolist()))


@settings(max_examples=100, deadline=None)
@given(
    finals=st.integers(1, 40).flatmap(lambda n: st.lists(st.integers(0, n - 1), min_size=n, max_size=n)),
    block=st.sampled_from([2, 4, 16]),
)
def test_every_packed_row_shares_its_tile_with_its_final_row(finals: list[int], block: int) -> None:
    packing = pack(torch.tensor(finals), block)
    assert len(packing.slots) % block == 0
    assert sorted(packing.rows.tolist()) == [row for row, final in enumerate(finals) if row != final]
    for row, slot in zip(packing.rows.tolist(), packing.row_slots.tolist(), strict=True):
        assert packing.slots[slot] == row
        assert packing.slots[slot // block * block + packing.places[slot]] == finals[row]
