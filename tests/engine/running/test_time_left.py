"""What an execution says of its stages and its time: by what was measured, by the estimate, or nothing."""

from __future__ import annotations

import re
from typing import Any

import pytest
from commands import engine as command

import engine.api
from engine.planning.plan import Plan
from engine.quantities import duration
from engine.running.time_left import TimeLeft
from specs.tables.executor import Executor

LOCAL = Executor()


def left(plan: Plan, executor: Executor = LOCAL, **options: Any) -> TimeLeft:
    return TimeLeft.of(plan, plan.cells, executor, **{"retry_failed": False} | options)


def test_times_in_words() -> None:
    seconds = (20, 60, 25 * 60, 11400, 2 * 3600, 27 * 3600, 24 * 3600)
    assert [duration(number) for number in seconds] == [
        "less than a minute", "1 min", "25 min", "3 h 10 min", "2 h", "1 d 3 h", "1 d",
    ]  # fmt: skip


def test_nothing_is_said_of_time_where_nothing_is_known(write_spec: Any) -> None:
    """Four trainings of two targets and two seeds, over one set of data and one model."""
    plan = engine.api.plan(write_spec())
    known = left(plan)
    assert known.seconds is None
    assert str(known) == "0/14 stages"  # data, base, and 4 × train, evaluate and probe


def test_what_was_measured_tells_the_rest(write_spec: Any) -> None:
    plan = engine.api.plan(write_spec())
    known = left(plan)
    flops = {(run.stage, run.key): run.flops for run in known._due.values()}
    first, other = plan.cells[0], plan.cells[1]
    assert plan.levels(first)["target"] == plan.levels(other)["target"]  # they do the same work
    rate = 6000 / flops["train", first.keys["train"]]  # seconds per FLOP
    known.done(first, "data", {"seconds": 1.0})
    known.done(first, "train", {"seconds": 6000.0})
    del flops["train", first.keys["train"]]
    assert known._expected(known._due["train", other.keys["train"]]) == 6000
    assert known.seconds == pytest.approx(rate * sum(flops.values()))
    assert str(known).startswith(("2/14 stages, about ", "2/14 stages, less than "))
    known.done(first, "evaluate", {"seconds": 60.0})
    evaluated = flops.pop(("evaluate", first.keys["evaluate"]))
    rates = {"train": rate, "evaluate": 60 / evaluated}
    both = 6060 / (6000 / rate + evaluated)  # of the stages that were not measured
    rest = sum(number * rates.get(stage, both) for (stage, _), number in flops.items())
    assert known.seconds == pytest.approx(rest)


def test_workers_divide_what_can_be_divided(write_spec: Any) -> None:
    """A training and what measures it stay with one worker."""
    plan = engine.api.plan(write_spec())
    times = {}
    for workers in (1, 2, 3, 8):
        known = left(plan, Executor(workers=workers))
        known.done(plan.cells[0], "train", {"seconds": 100.0})
        times[workers] = known.seconds
    units = times[8]
    assert times[1] > times[2] > times[3] >= units >= times[1] / 4
    known = left(plan, Executor(kind="ray"))
    known.done(plan.cells[0], "train", {"seconds": 100.0})
    assert known.seconds is None  # nobody knows how many work at a time


def test_a_failure_takes_what_needs_it_along(write_spec: Any) -> None:
    plan = engine.api.plan(write_spec())
    known = left(plan)
    known.failed(plan.cells[0], "train")
    assert str(known) == "3/14 stages"
    known.failed(plan.cells[1], "data")
    assert str(known).startswith("14/14 stages")


def test_what_is_steered_needs_its_differences(write_spec: Any) -> None:
    steer = '[[interventions]]\nname = "s"\nkind = "steer"\nlayers = [1]\ncells = { seed = 0 }\n'
    mask = '[[interventions]]\nname = "m"\nkind = "mask"\n'
    probe = '[probe]\nagainst = ["base"]\ndifferences = true\n'
    plan = engine.api.plan(write_spec(more=f"{probe}{steer}{mask}"))
    for cell in plan.cells:
        known = left(plan)
        known.failed(cell, "differences")
        assert str(known).startswith("2/" if plan.levels(cell)["seed"] == 0 else "1/")


def test_a_named_device_gives_time_before_anything_ran(write_spec: Any) -> None:
    plan = engine.api.plan(write_spec(more='[executor]\ndevice = "h100"\n'))
    assert (seconds := left(plan).seconds) is not None and seconds > 0


def test_records_of_like_stages_tell_the_time_and_execute_says_it(write_spec: Any) -> None:
    spec = write_spec()
    output = command("execute", spec, "--only", "seed=0").output
    assert "1/8 stages" in output and re.search("7/8 stages, (about|less)", output) and "8/8 stages" in output
    plan = engine.api.plan(spec)
    known = left(plan)
    assert {stage for stage, _ in known._seconds} == {"train", "evaluate", "probe"}
    measured = sum(sum(seconds) for seconds in known._seconds.values())
    assert known.seconds == pytest.approx(measured)  # the other seed does the same once more
    assert str(known).startswith(("0/6 stages, about ", "0/6 stages, less than "))


def at_work(plan: Plan, executor: Executor = LOCAL) -> tuple[TimeLeft, list[float]]:
    """What is left, by a clock that is set by hand."""
    known, now = left(plan, executor), [0.0]
    known.clock = lambda: now[0]
    return known, now


def test_a_stage_at_work_tells_the_time_by_its_own_pace(write_spec: Any) -> None:
    """A training of 100 steps that is gone on with at step 50, at half a second a step."""
    plan = engine.api.plan(write_spec())
    known, now = at_work(plan)
    first, other = plan.cells[0], plan.cells[1]
    known.done(first, "data", {})
    known.begin(first, "train")
    for seconds, step in ((8.0, 50), (9.0, 52), (10.0, 54)):
        now[0] = seconds
        known.runs(first, "train", step, 100)
    assert known.seconds is None  # two seconds of it tell too little
    now[0] = 12.0
    known.runs(first, "train", 58, 100)
    flops = {(run.stage, run.key): run.flops for run in known._due.values()}
    rate = 50 / flops.pop(("train", first.keys["train"]))  # seconds per FLOP, of 100 steps
    assert known._expected(known._due["train", other.keys["train"]], known._paced()) == pytest.approx(50)
    assert known.seconds == pytest.approx(42 * 0.5 + rate * sum(flops.values()))
    now[0] = 17.0  # nothing was heard for five seconds
    assert known.seconds == pytest.approx(42 * 0.5 - 5 + rate * sum(flops.values()))
    now[0] = 1000.0
    assert known.seconds == pytest.approx(rate * sum(flops.values()))
    known.stop(first, "train")  # its worker is gone: nothing is known any more
    assert known.seconds is None


def test_a_stage_at_work_counts_down_by_what_others_took(write_spec: Any) -> None:
    plan = engine.api.plan(write_spec())
    known, now = at_work(plan)
    known.done(plan.cells[0], "train", {"seconds": 100.0})
    before = known.seconds
    assert before is not None
    known.begin(plan.cells[1], "train")
    now[0] = 30.0
    assert known.seconds == pytest.approx(before - 30)
    now[0] = 500.0
    assert known.seconds == pytest.approx(before - 100)


def test_workers_that_nobody_counts_are_those_at_work(write_spec: Any) -> None:
    plan = engine.api.plan(write_spec())
    unknown, _ = at_work(plan, Executor(kind="ray"))
    two, _ = at_work(plan, Executor(workers=2))
    for known in (unknown, two):
        known.done(plan.cells[0], "train", {"seconds": 100.0})
    assert unknown.seconds is None
    for known in (unknown, two):
        for cell in plan.cells[1:3]:
            known.begin(cell, "train")
    assert unknown.seconds == pytest.approx(two.seconds)
    unknown.done(plan.cells[1], "train", {"seconds": 100.0})
    two.done(plan.cells[1], "train", {"seconds": 100.0})
    assert unknown.seconds == pytest.approx(two.seconds)
