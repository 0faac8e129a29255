"""Which trainings go side by side, how many of them, and what is said of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands import engine as command
from facts import told

import engine.api
from engine.planning.estimate import stage_memory
from engine.planning.plan import Plan
from engine.planning.training_groups import (
    fitting,
    group_memory,
    most_together,
    told_alone,
    training_groups,
)
from engine.running.scheduler import units
from specs.tables.executor import Executor

FACTORS = """
[factors.target.levels]
label = { target.content = "label" }
"label+explanation" = { target.content = "label+explanation" }
[factors.how.levels]
plain = {}
rank = { lora.r = 8, lora.dropout = 0.1, train.lr = 0.1, lora.target_modules = ["q_proj"] }
batch = { train.batch_size = 2 }
steps = { train.steps = 3 }
dora = { lora.dora = true }
untrained = { train.steps = 0 }
precision = { train.precision = "bfloat16" }
"""


@pytest.fixture
def plan(write_spec: Any) -> Plan:
    spec = write_spec()
    text = spec.read_text()
    spec.write_text(text[: text.index("[factors.target")] + FACTORS)
    return engine.api.plan(spec)


def levels(plan: Plan, groups: Any) -> list[list[str]]:
    """What the trainings of each group are, without their targets and seeds."""
    return [[plan.levels(training[0])["how"] for training in group] for group in groups]


def test_groups_have_one_model_shape_and_length(plan: Plan) -> None:
    groups = training_groups(plan, plan.cells, 100)
    found = {frozenset(names): len(names) for names in levels(plan, groups) if len(names) > 1}
    assert found == {
        frozenset({"plain", "rank"}): 8,  # of two targets and two seeds
        frozenset({"batch"}): 4,
        frozenset({"steps"}): 4,
        frozenset({"precision"}): 4,
    }
    alone = [names for names in levels(plan, groups) if len(names) == 1]
    assert sorted(alone) == [["dora"]] * 4 + [["untrained"]]  # which all share
    cells = [cell.index for group in groups for training in group for cell in training]
    assert sorted(cells) == list(range(len(plan.cells)))


def test_groups_are_of_like_size_and_length(plan: Plan) -> None:
    """Of eight trainings four with and four without explanation, at most six together."""
    cells = [cell for cell in plan.cells if plan.levels(cell)["how"] in ("plain", "rank")]
    groups = training_groups(plan, cells, 6)
    assert [len(group) for group in groups] == [4, 4]
    for group in groups:
        assert len({plan.levels(training[0])["target"] for training in group}) == 1
    assert [len(group) for group in training_groups(plan, cells, 3)] == [3, 3, 2]


def test_one_at_a_time_is_the_order_of_before(plan: Plan) -> None:
    groups = training_groups(plan, plan.cells, 1)
    assert all(len(group) == 1 for group in groups)
    firsts = [group[0][0].index for group in groups]
    assert firsts == sorted(firsts)
    assert [work.cells for work in units(plan, plan.cells, 1)] == [
        tuple(group[0]) for group in training_groups(plan, plan.cells, 1)
    ]


def test_a_unit_has_whole_groups(plan: Plan) -> None:
    groups = [
        {cell.index for training in group for cell in training}
        for group in training_groups(plan, plan.cells, 4)
    ]
    for batch in (1, 4, 9):
        works = units(plan, plan.cells, batch, together=4)
        for work in works:
            indices = {cell.index for cell in work.cells}
            assert indices == set().union(*(group for group in groups if group & indices))
            assert len({cell.keys["train"] for cell in work.cells}) <= max(batch, 4)
        assert [work.rank for work in works] == list(range(len(works)))
        assert sorted(cell.index for work in works for cell in work.cells) == list(range(len(plan.cells)))


@pytest.mark.parametrize(
    ("settings", "trainings", "expected"),
    [
        ({}, 9, 1),  # "auto"
        ({"together": 4}, 9, 4),
        ({"together": 4}, 3, 3),
        ({"together": 4, "workers": 2}, 9, 4),
        ({"together": 8, "workers": 4}, 9, 3),  # so that all four have some
        ({"together": 8, "workers": 4}, 0, 1),
        ({"together": 8, "workers": 4, "kind": "slurm"}, 9, 8),
        ({"together": 8, "ranks": 2}, 9, 1),
    ],
)
def test_how_many_go_together(settings: dict[str, Any], trainings: int, expected: int) -> None:
    assert most_together(Executor(**settings), trainings) == expected


def test_memory_is_the_model_once_and_all_else_of_each(plan: Plan) -> None:
    """Batches of labels alone become as wide as those with explanations."""
    alike = [cell for cell in plan.cells if plan.levels(cell)["how"] == "plain"]
    label, explained = (
        [cell for cell in alike if plan.levels(cell)["target"] == target]
        for target in ("label", "label+explanation")
    )
    one, other = (stage_memory(plan, cells[0], "train") for cells in (label, explained))
    assert one is not None and other is not None and one < other
    weights = 2 * one - (group_memory(plan, label) or 0)
    assert 5e8 < weights < one  # a process takes half a GB by itself
    assert group_memory(plan, label[:1]) == pytest.approx(one)
    both = group_memory(plan, [label[0], explained[0]])
    assert both is not None and weights + (one - weights) + (other - weights) < both
    assert both < weights + 2 * (other - weights)  # completions stay short
    for size in (1, 2, 3):
        need = group_memory(plan, (label + explained)[:size])
        assert need is not None
        assert fitting(plan, label + explained, need / 0.95 + 1) == size
    assert fitting(plan, label + explained, 1.0) == 1
    assert fitting(plan, label + explained, None) == 4


def test_what_cannot_go_along_is_told_once_for_each_reason(plan: Plan) -> None:
    (line,) = told_alone(plan, plan.cells, Executor(together=4))
    assert told(line, "executor.together", "4 trainings", "lora.dora")
    assert told_alone(plan, plan.cells, Executor()) == []
    (line,) = told_alone(plan, plan.cells, Executor(together=4, ranks=2))
    assert told(line, "executor.together", "executor.ranks = 2", "one by one")


def test_a_plan_tells_what_goes_side_by_side_and_what_cannot(plan: Plan, tmp_path: Path) -> None:
    spec = plan.matrix.spec.path
    output = command("plan", spec, "--set", "executor.together=3").output
    (line,) = [line for line in output.splitlines() if line.startswith("side by side")]
    assert told(line, "executor.together = 3", "20 trainings", "at most 3 at a time", "of memory")
    assert told(output, "warning: executor.together: found 3", "4 trainings", "lora.dora")
    assert "side by side" not in command("plan", spec).output
    assert "side by side" not in command("plan", spec, "--set", "executor.together=1").output


def test_trackers_of_a_process_follow_one_training(write_spec: Any) -> None:
    for names, expected in (('["tensorboard"]', 0), ('["tensorboard", "wandb"]', 1)):
        planned = engine.api.plan(write_spec(train=f"steps = 2\nreport_to = {names}"))
        lines = told_alone(planned, planned.cells, Executor(together=4))
        assert len(lines) == expected
        assert all(told(line, "4 trainings", "train.report_to", "wandb") for line in lines)


def test_compiled_trainings_go_one_by_one(write_spec: Any) -> None:
    planned = engine.api.plan(write_spec(train="steps = 2\ncompile = true"))
    (line,) = told_alone(planned, planned.cells, Executor(together=4))
    assert told(line, "4 trainings", "train.compile")
    assert planned.cells == engine.api.plan(write_spec(train="steps = 2")).cells  # it is part of no key
