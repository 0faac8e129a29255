"""What a plan says that is no mistake by itself: data without explanations, schedules, devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

from engine.data.prepare import SPLITS
from engine.data.sources import sources
from engine.models.gpus import missing_gpu
from engine.planning.checks import known_sizes, unreadable_data
from engine.planning.data_read import test_data, test_prompt
from engine.planning.executor_settings import executor_settings
from engine.planning.intervention_cost import sweep_warnings
from engine.planning.measured_less import measured_less
from engine.planning.memory_fit import fit_warnings
from engine.planning.module_names import misspelt_modules
from engine.planning.outcomes import holds
from engine.planning.places import older_store
from engine.planning.plan import Plan, PlannedCell, grouped
from engine.planning.schedule import schedule_warnings
from engine.planning.training_groups import told_alone
from engine.planning.unread_settings import unread_settings
from engine.terminal import shown
from specs.common.names import INSPECT_PREFIX, OUTCOME_KEYS, TASK_PREFIX
from specs.tables.data import Data
from specs.tables.experiment import STAGES
from specs.toml import keys
from specs.toml.convert import unstructure
from specs.toml.describe import value as spell
from store import Ledger, read_manifests
from store.ledger.manifests import lost_cells

_MAKES = {name: f'"{entry}" in {key}' if entry else key for name, (key, entry) in OUTCOME_KEYS.items()}
_MAKES["absolute_error"] += " and labels that are numbers"
_RECORDS = "the name in probe.statistics, and probe.enabled = true"
_FATE = {"error": "a stage that reads them will fail", "label": "the label alone stands for them"}


def plan_warnings(plan: Plan) -> list[str]:
    """Give what a person should know before the plan is executed, a sentence each.

    What is wrong with data has the lines of their rows; no other warning has more than one.
    """
    sentences = [
        *_unexplained(plan),
        *_unmeasured(plan),
        *_unasked(plan),
        *schedule_warnings(plan),
        *_devices(plan),
        *fit_warnings(plan),
        *misspelt_modules(plan),
        *sweep_warnings(plan),
        *told_alone(plan, plan.cells, executor_settings(plan.matrix.spec, {})),
        *_without_effect(plan),
        *_unread(plan),
        *measured_less(plan),
        *unread_settings(plan),
    ]
    first = [*older_store(plan), *changed_files(plan)]
    return [*map(shown, first), *unreadable_data(plan), *map(shown, sentences)]


def _unread(plan: Plan) -> Iterator[str]:
    """Yield a sentence per setting that nothing reads, or that leaves something out."""
    matrix = plan.matrix
    for cell in matrix.distinct("probe", "train"):
        probe, steps = matrix.table("probe", cell), matrix.table("train", cell).steps
        at = matrix.written("probe.at", cell)
        if probe.at and not probe.enabled:
            yield f"{at}: nothing is probed (probe.enabled = false)"
        elif probe.at and steps == 0:
            yield f"{at}: cells with train.steps = 0 have no training to go along"
    yield from _empty_prompts(plan)
    for cell in matrix.distinct("lora", "target"):
        lora, target = matrix.table("lora", cell), matrix.table("target", cell)
        for token in lora.trained_tokens:
            if target.content == "label+filler" and token not in target.filler:
                yield (
                    f"{matrix.written('lora.trained_tokens', cell)}: {spell(token)} does not occur in "
                    f"target.filler ({spell(target.filler)})"
                )


def _empty_prompts(plan: Plan) -> Iterator[str]:
    """Yield a sentence per wording, of the training or the test alone, that shows nothing of an example."""
    matrix, told = plan.matrix, set()
    for cell in matrix.distinct("prompt", "data", "evaluate"):
        tested = "prompt" if matrix.table("evaluate", cell).prompt is None else "evaluate.prompt"
        wordings = [
            ("prompt", matrix.table("prompt", cell), matrix.table("data", cell)),
            (tested, test_prompt(matrix, cell), test_data(matrix, cell)),
        ]
        for table, prompt, data in wordings:
            at = matrix.written(f"{table}.template", cell)
            shown = map(prompt.shows, ("context", "response", *data.columns.fields))
            if not prompt.messages and at not in told and not any(shown):
                told.add(at)
                yield f"{at}: shows nothing of an example; expected a field such as {{response}}"


def _without_effect(plan: Plan) -> Iterator[str]:
    """Yield a sentence per rule and pair of levels that make no difference."""
    matrix = plan.matrix
    rules = matrix.experiment.rules
    if rules.include and not rules.exclude:
        yield "rules.include: there is no rules.exclude, from which it could keep a cell"
    zipped = {name for group in rules.zip for name in group}
    for position, axis in enumerate(matrix.axes[:-1]):  # the last is the seed
        if axis.name in zipped:
            continue
        for first, second in _alike(plan, position):
            labels = [spell(axis.levels[level].label) for level in (first, second)]
            yield (
                f"factors.{axis.name}: the levels {labels[0]} and {labels[1]} resolve to the same settings, "
                "so their cells are the same results; expected levels that differ"
            )
        if len(axis.levels) == 1 and _sets_nothing(plan, axis.name):
            yield f"factors.{axis.name}: its one level changes nothing; expected further levels, or no factor"


def _alike(plan: Plan, position: int) -> list[tuple[int, int]]:
    """Give the pairs of levels of an axis whose cells, all else equal, have the same stage keys."""
    rows: dict[tuple[int, ...], dict[int, dict[str, str]]] = {}
    for cell in plan.cells:
        choice = cell.choice
        rows.setdefault((*choice[:position], *choice[position + 1 :]), {})[choice[position]] = cell.keys
    known: dict[tuple[int, int], bool] = {}
    for by_level in rows.values():
        for first, second in combinations(sorted(by_level), 2):
            same = by_level[first] == by_level[second]
            known[first, second] = same and known.get((first, second), True)
    return [pair for pair, same in known.items() if same]


def _sets_nothing(plan: Plan, factor: str) -> bool:
    """Tell whether the one level of a factor says what holds without it."""
    axis = next(axis for axis in plan.matrix.axes if axis.name == factor)
    settings = unstructure(plan.matrix.experiment)
    held = (keys.leaf(settings, keys.split(key)) for key in axis.levels[0].overrides)
    return list(held) == list(axis.levels[0].overrides.values())


def changed_files(plan: Plan) -> list[str]:
    """Give a sentence per data file that has changed since finished cells of the experiment were made."""
    name, now = plan.matrix.experiment.name, plan.files()
    noted = read_manifests(plan.root, name).get(name, {}).get("files", {})
    changed = [path for path, identity in now.items() if noted.get(path, identity) != identity]
    if not changed:
        return []
    cell_keys = [
        {stage: cell.keys[stage] for stage in STAGES[1:] if stage in cell.keys} for cell in plan.cells
    ]
    lost = lost_cells(plan.root, name, {"cells": [{"keys": keys} for keys in cell_keys]})
    trained = (plan.matrix.table("data", cell) for cell in plan.matrix.distinct("data"))
    known = {str(source) for data in trained for source in sources(data)}
    return [
        f"{'' if path in known else 'evaluate.'}data.source: {path} has changed since {lost} finished cells "
        "of this experiment were made from it; they stay in the store, and the cells of this spec are made "
        "anew; expected the former file, or another experiment's name to keep both"
        for path in changed
        if lost
    ]


def _devices(plan: Plan) -> Iterator[str]:
    """Yield a sentence per device that this machine has not; another one may execute the plan."""
    if plan.matrix.experiment.executor.kind != "local":
        return
    models = (plan.matrix.table("model", cell).device for cell in plan.matrix.distinct("model"))
    for device in dict.fromkeys(models):
        if lacking := missing_gpu(device):
            yield f'{lacking}; expected a machine that has it for `engine execute`, or "auto", or "cpu"'


def _unexplained(plan: Plan) -> Iterator[str]:
    """Yield a sentence per data set that lacks explanations where targets need them, as far as is known."""
    needing = [cell for cell in plan.cells if plan.matrix.table("target", cell.choice).content != "label"]
    for cells in grouped(needing, lambda cell: cell.keys["data"]):
        data = plan.matrix.table("data", cells[0].choice)
        counts = _counts(plan, cells[0], data)
        if dropped := int(counts.get("dropped_unexplained", 0)):
            yield f'data.empty_explanations = "drop": {dropped:,} rows without explanation are left out'
        without = {split: int(counts.get(f"{split}_examples_without_explanation", 0)) for split in SPLITS}
        if any(without.values()):
            numbers = ", ".join(f"{number:,} {split}" for split, number in without.items() if number)
            contents = dict.fromkeys(plan.matrix.table("target", cell.choice).content for cell in cells)
            lacking = f"{numbers} examples have no explanation, which {', '.join(contents)} needs"
            policy = data.empty_explanations
            yield f'data.empty_explanations = "{policy}": {lacking}; {_FATE.get(policy, "")}'


def _unmeasured(plan: Plan) -> Iterator[str]:
    """Yield a sentence per declared outcome that the results of some cells will lack."""
    settings = plan.matrix.experiment.analysis
    declared = dict.fromkeys([settings.primary] if settings.primary else [], "analysis.primary")
    for outcome in settings.smallest_difference_of_interest:
        declared.setdefault(outcome, f"analysis.smallest_difference_of_interest.{outcome}")
    tables = plan.matrix.chooser("evaluate", "probe", "target")
    alike = grouped(plan.cells, lambda cell: tables(cell.choice)) if declared else []
    for outcome, key in declared.items():
        if lacking := sum(len(cells) for cells in alike if not holds(plan, cells[0], outcome)):
            yield (
                f"{key}: {lacking:,} of {len(plan.cells):,} cells will have no {outcome}; expected "
                f"{_makes(outcome)}, or another outcome"
            )


def _makes(outcome: str) -> str:
    """Say what makes results hold an outcome."""
    if outcome.startswith(TASK_PREFIX):
        return "its task in evaluate.tasks (or a group that has it)"
    if outcome.startswith(INSPECT_PREFIX):
        return "its task in evaluate.inspect.tasks"
    return _MAKES.get(outcome, _RECORDS)


def _unasked(plan: Plan) -> Iterator[str]:
    """Yield a sentence where no cell has what counterfactuals could take the place of."""
    table = plan.matrix.table
    asked = [cell.choice for cell in plan.cells if table("evaluate", cell.choice).counterfactuals]
    if asked and not any(table("target", choice).explains_first for choice in asked):
        yield (
            "evaluate.counterfactuals: no cell writes an explanation before its label, which alone the label "
            'could follow; expected target.placement "before" or "interleaved" in some cell'
        )


def _counts(plan: Plan, cell: PlannedCell, data: Data) -> Mapping[str, float]:
    """Give what is known of a data set: from the store, else from files that are read at once."""
    key = cell.keys["data"]
    if plan.states["data"][key] == "cached":
        return dict(Ledger(plan.root).record("data", key)["summary"])
    return known_sizes(data, plan.matrix.table("evaluate", cell.choice).labels) or {}
