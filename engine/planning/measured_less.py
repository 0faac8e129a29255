"""What a plan says of probes and interventions that measure less than they ask for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine.planning.changes import entries
from engine.planning.checks import known_sizes
from engine.planning.data_read import test_data, test_table
from engine.planning.plan import Plan
from specs.common.names import GRAM, SIMILARITIES
from specs.common.thresholds import FEWEST_POINTS, FEWEST_SIMILAR
from specs.tables.lora import Lora
from specs.toml.describe import value as spell


def measured_less(plan: Plan) -> Iterator[str]:
    """Yield a sentence per setting that measures nothing, or the same thing twice."""
    yield from _few_examples(plan)
    yield from _twice(plan)
    yield from _nowhere(plan)
    yield from _from_elsewhere(plan)
    yield from _no_difference(plan)


def _few_examples(plan: Plan) -> Iterator[str]:
    """Yield a sentence per number of examples that some geometry of the probe needs more of."""
    matrix, told = plan.matrix, set[str]()
    for cell in matrix.distinct("data", "evaluate", "probe"):
        probe, data = matrix.table("probe", cell), test_data(matrix, cell)
        if not (probe.enabled and probe.geometry):
            continue
        sizes = known_sizes(data, matrix.table("evaluate", cell).labels) if data.test is None else None
        tested = int(sizes["test"]) if sizes else data.test
        numbers = {f"{test_table(matrix, cell)}.test": tested, "probe.examples": probe.examples}
        known = {key: number for key, number in numbers.items() if number}
        if not known:
            continue
        count, key = min((number, key) for key, number in known.items())
        for fewest, names in _needs(probe.geometry).items():
            at = matrix.written(key, cell)
            if count < fewest and (said := f"{at}: found {count}, but {names} of probe.geometry") not in told:
                told.add(said)
                several = "," in names
                need, will = ("need", "they") if several else ("needs", "it")
                yield f"{said} {need} {fewest} examples; {will} will be NaN"


def _needs(geometry: Sequence[str]) -> dict[int, str]:
    """Give the measures that need at least so many examples, by that number."""
    needs: dict[int, list[str]] = {}
    for name in geometry:
        if name not in ("curvature", GRAM):  # of each example by itself, or of each two
            needs.setdefault(FEWEST_SIMILAR if name in SIMILARITIES else FEWEST_POINTS, []).append(
                spell(name)
            )
    return {fewest: ", ".join(names) for fewest, names in needs.items()}


def _twice(plan: Plan) -> Iterator[str]:
    """Yield a sentence per watch position that has two names: -1 is the end of the prompt."""
    matrix, told = plan.matrix, set[str]()
    for cell in matrix.distinct("probe"):
        probe = matrix.table("probe", cell)
        at = matrix.written("probe.positions", cell)
        if probe.enabled and {"prompt_end", "-1"} <= {*probe.position_names} and at not in told:
            told.add(at)
            yield f'{at}: -1 is "prompt_end", which is watched already; expected each position once'


def _nowhere(plan: Plan) -> Iterator[str]:
    """Yield a sentence per intervention that changes no cell, for each would take from itself."""
    changing = {name for cell in plan.cells for name in cell.sources}
    for place, settings in enumerate(plan.matrix.experiment.interventions):
        if settings.name not in changing:
            yield (
                f"interventions[{place}]: {spell(settings.name)} changes no cell: what it takes from is the "
                f"cell's own model on the same input; expected another donor, or cells that differ from it"
            )


def _from_elsewhere(plan: Plan) -> Iterator[str]:
    """Yield a sentence per steering that adds the difference of another token than the changed one."""
    matrix, steered = plan.matrix, set[str]()
    for cell in plan.cells if matrix.experiment.interventions else ():
        if matrix.table("target", cell.choice).explains_first:
            steered |= {
                entry.settings.name for entry in entries(plan, cell) if entry.settings.kind == "steer"
            }
    for place, settings in enumerate(matrix.experiment.interventions):
        at_label = settings.positions != "all" and "prompt_end" in settings.positions
        if settings.name in steered and at_label and settings.from_positions == ["prompt_end"]:
            at = f"interventions[{place}].from_positions"
            yield (
                f'{at}: found the probe\'s "prompt_end", which is before the explanation; expected "label", '
                'the token that `positions` calls "prompt_end", where the explanation comes first'
            )


def _no_difference(plan: Plan) -> Iterator[str]:
    """Yield a sentence per steering by the difference behind the embedding, where all cells have the same."""
    matrix = plan.matrix
    if any(_trains_embedding(matrix.table("lora", cell)) for cell in matrix.distinct("lora")):
        return
    for place, settings in enumerate(matrix.experiment.interventions):
        if settings.kind == "steer" and settings.from_layer == 0:
            yield (
                f"interventions[{place}].from_layer: found 0, the embedding, which no cell trains, so the "
                'difference is 0 there; expected another layer, or "same"'
            )


def _trains_embedding(lora: Lora) -> bool:
    """Whether an embedding may be among the adapted modules: steered cells have none trained in full."""
    targets = [lora.target_modules] if isinstance(lora.target_modules, str) else lora.target_modules
    return any(part in name for name in targets for part in ("emb", "wte", "wpe"))
