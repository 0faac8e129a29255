"""The simulated cluster keeps its books, and the engine's scheduling comes to an end on it whatever fails."""

from __future__ import annotations

import math

import pytest
from attrs import evolve

from benchmarks.simulation.pool import Faults
from benchmarks.simulation.run import Result, Settings, planned, simulate
from benchmarks.simulation.work import Costs, Hardware

CALM = Settings(gpus=40, faults=Faults())
ROUGH = evolve(CALM, faults=Faults(gpu_hours=3, node_hours=2, slow_share=0.1))


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> Costs:
    """A plan of 300 cells and 250 trainings of two models, and what it costs."""
    models = ("qwen2.5-0.5b", "llama-3.2-3b")
    return Costs.of(planned(tmp_path_factory.mktemp("simulated"), 1, models), Hardware())


def booked(result: Result) -> float:
    """The GPU-hours of all kinds together, over the pool's."""
    return sum(result.spent.values()) / (CALM.gpus * result.hours)


def test_without_failures_nothing_is_lost_and_no_bound_is_undercut(costs: Costs) -> None:
    result = simulate(costs, CALM)
    assert (result.done, result.failed, result.deaths) == (300, 0, 0)
    assert result.spent["lost"] == result.spent["away"] == 0
    assert result.spent["useful"] == pytest.approx(costs.work() / 3600)
    assert result.hours >= result.bound >= costs.longest() / 3600
    assert result.spent["start"] == pytest.approx(40 * CALM.start / 3600)  # each worker once
    assert booked(result) == pytest.approx(1)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("lasting", [True, False])
def test_whatever_dies_all_is_done_in_the_end_and_every_hour_is_booked(
    costs: Costs, batch: int, lasting: bool
) -> None:
    result = simulate(costs, evolve(ROUGH, batch=batch, lasting=lasting, retries=1000))
    assert result.deaths > 10 and result.spent["lost"] > 0 and result.spent["away"] > 0
    assert (result.done, result.failed, result.held) == (300, 0, 0)
    assert result.spent["useful"] == pytest.approx(costs.work() / 3600)  # what was done counts once
    assert booked(result) == pytest.approx(1)


def test_a_seed_gives_one_course_of_events(costs: Costs) -> None:
    first, again = (simulate(costs, ROUGH) for _ in range(2))
    real = {"seconds": 0.0, "coordinating": 0.0}
    assert evolve(first, **real) == evolve(again, **real)
    assert simulate(costs, evolve(ROUGH, seed=1)).hours != first.hours


def test_a_checkpoint_saves_what_a_death_would_lose(costs: Costs) -> None:
    often = simulate(costs, evolve(ROUGH, interval=60.0, retries=1000))
    never = simulate(costs, evolve(ROUGH, interval=math.inf, retries=1000))
    assert never.spent["save"] == 0 < often.spent["save"]
    assert often.spent["lost"] < never.spent["lost"] / 2


def test_where_every_worker_dies_every_cell_is_recorded_as_failed(costs: Costs) -> None:
    deadly = Faults(broken=40, broken_seconds=20.0)  # less than a worker's start
    result = simulate(costs, evolve(CALM, faults=deadly, retries=1))
    failed = 250 + 2  # the trainings, and the evaluations of the two untrained models
    assert (result.done, result.failed, result.held) == (0, failed, 0)
    assert result.deaths == 2 * failed
    assert result.spent["useful"] == 0 and booked(result) == pytest.approx(1)
