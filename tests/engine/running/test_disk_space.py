"""Whether there is room is asked of the store's own disk, for results and for checkpoints of all workers."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from engine.errors import UsageError
from engine.full_memory import Limit
from engine.planning.cost import Cost
from engine.planning.plan import Plan, make_plan
from engine.quantities import si
from engine.running import disk_space
from engine.running.disk_space import check_space, memory_warning
from specs import load_spec, resolve

Usage = namedtuple("Usage", ("total", "used", "free"))
COSTS = {"train": Cost(stored=100, scratch=30), "probe": Cost(stored=1000)}


@pytest.fixture
def plan(write_spec, tmp_path: Path) -> Plan:
    return make_plan(resolve(load_spec(write_spec())), tmp_path / "parent" / "store")


def fits(plan: Plan, free: int, workers: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10_000, 10_000 - free, free))
    try:
        check_space(plan, COSTS, workers)
    except UsageError as error:
        assert str(error).startswith(f"{plan.root}: ") and error.exit_code == 2
        need = 1100 + 30 * workers
        for fact in (si(free, "B"), si(need, "B"), si(30 * workers, "B"), "--store", "--ignore-space"):
            assert fact in str(error)
        return False
    return True


@pytest.mark.parametrize("workers", [1, 4])
def test_results_and_a_checkpoint_of_each_worker_need_room(
    plan: Plan, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = 1100 + 30 * workers
    assert fits(plan, need, workers, monkeypatch)
    assert not fits(plan, need - 1, workers, monkeypatch)
    assert not fits(plan, 0, workers, monkeypatch)


def test_the_disk_asked_is_that_of_the_nearest_folder_there_is(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def usage(folder: Path) -> Usage:
        asked.append(folder)
        return Usage(10**9, 0, 10**9)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    check_space(plan, COSTS, 1)
    (tmp_path / "parent" / "store").mkdir(parents=True)
    check_space(plan, COSTS, 1)
    assert asked == [tmp_path, tmp_path / "parent" / "store"]
    assert not any(tmp_path.joinpath("parent", "store").iterdir())  # asking writes nothing


def test_nothing_to_run_needs_no_room(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1, 1, 0))
    check_space(plan, {}, 4)


@pytest.mark.parametrize(
    ("size", "processes", "warns"), [(400, 1, False), (399, 1, True), (400, 2, True), (800, 2, False)]
)
def test_memory_is_that_of_the_largest_stage_in_every_process(
    plan: Plan, size: int, processes: int, warns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_space, "limit", lambda: Limit(size, "the-source"))
    monkeypatch.setattr(disk_space, "nvidia_gpu", lambda: False)
    monkeypatch.setattr(disk_space, "estimate", lambda *_: None)  # nothing suits itself to what there is
    costs = {"train": Cost(memory=400), "probe": Cost(memory=300)}
    warning = memory_warning(plan, plan.cells, costs, processes)
    assert (warning is not None) == warns
    if warning is not None:
        for fact in (f"{400 * processes} B", f"{size} B", "the-source", "train", "model.dtype"):
            assert fact in warning


def test_a_training_that_suits_itself_to_the_memory_is_no_cause_to_warn(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms: list[float] = []

    def suited(_plan: Plan, _cells: object, room: float) -> dict[str, Cost]:
        rooms.append(room)
        return {"train": Cost(memory=room)}

    monkeypatch.setattr(disk_space, "limit", lambda: Limit(500, "the-source"))
    monkeypatch.setattr(disk_space, "nvidia_gpu", lambda: False)
    monkeypatch.setattr(disk_space, "estimate", suited)
    assert memory_warning(plan, plan.cells, {"train": Cost(memory=400)}, 2) is None and rooms == [250]


def test_a_gpus_memory_is_not_that_of_this_process(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_space, "limit", lambda: Limit(1, "the-source"))
    monkeypatch.setattr(disk_space, "nvidia_gpu", lambda: True)
    costs = {"train": Cost(memory=400)}
    for hidden, warns in ((False, False), (True, True)):
        monkeypatch.setattr(disk_space, "all_hidden", lambda hidden=hidden: hidden)
        assert (memory_warning(plan, plan.cells, costs, 1) is not None) == warns
    assert memory_warning(plan, plan.cells, {}, 1) is None
