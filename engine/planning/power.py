"""Power before paying: which true differences the contrasts of a plan would find, and by which variances.

xarray is imported only where a pilot is read, and scipy only where a contrast is declared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import attrs
from attrs import frozen

from engine.errors import UsageError
from engine.planning.checks import known_sizes
from engine.planning.data_read import test_data
from engine.planning.estimate import UNKNOWN_EXAMPLES
from engine.planning.outcomes import holds, is_counted
from engine.planning.plan import Plan, PlannedCell
from engine.planning.sizes import model_card
from specs.common.contrast_names import against, contrast_names
from specs.common.names import CORRECTED_OUTCOMES, EXAMPLE_OUTCOMES
from specs.tables.analysis import Outcome
from store import StoreError, read_manifests
from store.backend.location import Root
from store.errors import FAULTS

if TYPE_CHECKING:
    from store.analysis.power import Design, Power, Variation

DEFAULT_OUTCOMES: tuple[Outcome, ...] = ("correct", "entropy")
UNKNOWN_LAYERS = 33  # of a model that is not on this machine: as most of 7 to 8 billion parameters have
DOCS = "docs/power.md"


@frozen
class PowerQuestion:
    """One contrast in one outcome, on one test set."""

    factor: str
    levels: tuple[Any, ...]
    """Those compared with the baseline, each by itself, that have equal answers."""
    baseline: Any
    outcome: Outcome
    design: Design
    same_group: float
    """Chance that two examples are of one group."""
    test: int
    """Test examples that the plan evaluates."""
    most: int | None
    """Test examples that there are; None where that is not known."""
    positions: int
    """Watch positions, each with tests of its own."""
    sets: int = 1
    """Test sets on which the design is the same."""

    @property
    def contrast(self) -> tuple[str, str]:
        """What tells the declared contrast from others: the factor and its baseline."""
        return self.factor, str(self.baseline)

    def is_named(self, contrast: str | None) -> bool:
        """Whether a name means this contrast: its factor, or `FACTOR against BASELINE`; None is any."""
        return contrast in (None, self.factor, against(*self.contrast))

    @property
    def layered(self) -> bool:
        """Whether the outcome is one of each layer."""
        return self.outcome not in EXAMPLE_OUTCOMES

    @property
    def share(self) -> bool:
        """Whether the outcome is a share, such as an accuracy."""
        return self.outcome.endswith("correct")

    def family(self, plan: Plan) -> tuple[str, ...]:
        """Give what names the tests that are corrected together."""
        kind = plan.matrix.experiment.analysis.family
        return {"outcome": (self.outcome,), "spec": ()}.get(kind, (*self.contrast, self.outcome))

    def sized(self, seeds: int, examples: int) -> Design:
        """Give the design with other numbers of seeds and examples."""
        groups = _units(examples, self.same_group)
        return attrs.evolve(self.design, seeds=seeds, examples=examples, groups=groups)


@frozen
class PowerAnswer:
    """By what a question's power is computed."""

    question: PowerQuestion
    variation: Variation
    range: tuple[Variation, Variation] | None
    """With the least and largest variance between seeds that go with the pilot's; None without a pilot."""
    source: str
    """Where the variances come from, in words."""

    def power(self, design: Design, variation: Variation | None = None, *, alone: bool = False) -> Power:
        """Give the power of a design, after the correction of its tests unless the one is `alone`."""
        from store.analysis.power import corrected, pointwise

        return (pointwise if alone else corrected)(design, variation or self.variation)


def answers(
    plan: Plan, pilot: Root | None = None, *, contrast: str | None = None, outcome: Outcome | None = None
) -> list[PowerAnswer]:
    """Give how every declared contrast varies, in the outcomes that the spec names; equal ones once.

    pilot: a store that holds the experiment; by default the plan's own, as far as it does. UsageError where
    `pilot` does not, and for a contrast or an outcome that the spec has not.
    """
    from store.analysis.assumed import is_known

    wanted = _outcomes(plan, outcome)
    every = list(questions(plan, list(dict.fromkeys([*wanted, *CORRECTED_OUTCOMES]))))
    tests: Counter[tuple[str, ...]] = Counter()
    for question in every:
        tests[question.family(plan)] += question.design.layers * question.positions
    _check(plan, every, contrast, outcome)
    known = [question for question in wanted if is_known(question, _assumed(plan, question))]
    asked = [question for question in every if question.outcome in known and question.is_named(contrast)]
    tree = _open(plan, pilot) if asked or pilot else None
    answer_of: dict[Any, PowerAnswer] = {}
    for question in asked:
        design = attrs.evolve(question.design, tests=tests[question.family(plan)])
        answer = _answer(plan, attrs.evolve(question, design=design), tree, pilot)
        same = question.contrast, question.outcome, answer.question.design, answer.variation, answer.source
        if same in answer_of:
            before = answer_of[same].question
            levels = tuple(dict.fromkeys((*before.levels, *question.levels)))
            sets = before.sets + (question.levels == before.levels)
            answer = attrs.evolve(answer_of[same], question=attrs.evolve(before, levels=levels, sets=sets))
        answer_of[same] = answer
    return list(answer_of.values())


def questions(plan: Plan, outcomes: list[Outcome]) -> Iterator[PowerQuestion]:
    """Yield the declared contrasts, level by level and on each test set, in those outcomes that they have."""
    sides: dict[tuple[str, str], list[tuple[PlannedCell, PlannedCell]]] = {}
    for name, condition, baseline in plan.matrix.pairs():
        pair = plan.cells[condition], plan.cells[baseline]
        if pair[0].keys["test_data"] == pair[1].keys["test_data"]:  # others share no examples
            sides.setdefault((name, pair[0].keys["test_data"]), []).append(pair)
    tables = plan.matrix.chooser("evaluate", "probe", "target")
    sizes: dict[str, dict[str, float]] = {}
    for (name, test_set), pairs in sides.items():
        first = pairs[0][0].choice
        if test_set not in sizes:
            labels = plan.matrix.table("evaluate", first).labels
            sizes[test_set] = known_sizes(test_data(plan.matrix, first), labels) or {}
        distinct = {tables(cell.choice): cell for pair in pairs for cell in pair}.values()
        for outcome in outcomes:
            if is_counted(outcome) and all(holds(plan, cell, outcome) for cell in distinct):
                yield _question(plan, pairs, name.partition(": ")[0], outcome, sizes[test_set])


def _check(plan: Plan, questions: list[PowerQuestion], contrast: str | None, outcome: Outcome | None) -> None:
    """Raise UsageError for a contrast that is not declared, and an outcome that is not measured or known."""
    from store.analysis.assumed import NEEDED, is_known

    if contrast is not None and not any(question.is_named(contrast) for question in questions):
        found = dict.fromkeys(question.contrast for question in questions)
        known = ", ".join(contrast_names([*found])) or "no contrast"
        raise UsageError(f"--contrast {contrast}: expected a factor of [[contrasts]], found {known} there")
    if outcome is not None and not is_counted(outcome):
        raise UsageError(f"--outcome {outcome}: a plan does not know how many texts it is measured on")
    if outcome is not None and questions and outcome not in {question.outcome for question in questions}:
        raise UsageError(f"--outcome {outcome}: the cells of the contrasts do not measure it")
    if outcome is not None and not is_known(outcome, _assumed(plan, outcome)):
        expected = f"{', '.join(NEEDED)} in [analysis.assumed.{outcome}]"
        raise UsageError(f"--outcome {outcome}: how it varies is not known; expected {expected}")


def _outcomes(plan: Plan, outcome: Outcome | None) -> list[Outcome]:
    """Give the outcomes that are asked for: by the command, else by `[analysis]`, else the usual two."""
    if outcome is not None:
        return [outcome]
    settings = plan.matrix.experiment.analysis
    primary = [settings.primary] if settings.primary else []
    return list(dict.fromkeys([*primary, *settings.smallest_difference_of_interest])) or [*DEFAULT_OUTCOMES]


def _question(
    plan: Plan,
    pairs: list[tuple[PlannedCell, PlannedCell]],
    factor: str,
    outcome: Outcome,
    sizes: dict[str, float],
) -> PowerQuestion:
    from store.analysis.power import Design

    condition, base = pairs[0]
    matrix = plan.matrix
    data = test_data(matrix, condition.choice)
    most = int(sizes["test"]) if sizes else None
    test = min([count for count in (data.test, most) if count is not None], default=UNKNOWN_EXAMPLES)
    examples, layers, positions = test, 1, 1
    if outcome not in EXAMPLE_OUTCOMES:
        probe = matrix.table("probe", condition.choice)
        positions = len(probe.position_names)
        examples = min(examples, probe.examples or examples)
        card = model_card(matrix.table("model", condition.choice))
        layers = len(probe.layers) if probe.layers != "all" else card.layers + 1 if card else UNKNOWN_LAYERS
    seeds = Counter(matrix.seed(cell.choice) for cell, _ in pairs)
    same_group = sizes.get("test_same_group", 0.0)
    settings = matrix.experiment.analysis
    looks: Any = {"spending": tuple(settings.looks), "anytime": "anytime"}.get(settings.monitoring)
    pairs_of_seed = max(1, min(seeds.values()))
    units = _units(examples, same_group)
    design = Design(len(seeds), examples, units, pairs_of_seed, layers, looks=looks)
    levels = plan.levels(condition)[factor], plan.levels(base)[factor]
    return PowerQuestion(factor, levels[:1], levels[1], outcome, design, same_group, test, most, positions)


def _units(examples: int, same_group: float) -> float | None:
    """Give how many groups of equal size a random sample of examples has; None: each example is its own."""
    return examples / (1 + (examples - 1) * same_group) if same_group > 0 else None


def _open(plan: Plan, pilot: Root | None) -> Any:
    """Give the experiment's node of the pilot's store, or None where the plan's own has no results of it."""
    name, root = plan.matrix.experiment.name, pilot or plan.root
    known = read_manifests(root)
    if pilot is not None and name not in known:
        raise UsageError(
            f'{pilot}: expected a store with the experiment "{name}", found {", ".join(known) or "none"}'
        )
    if pilot is None and not any("cached" in states.values() for states in plan.states.values()):
        return None
    if name not in known:
        return None
    from store import open_store

    node = open_store(root, name).children[name]
    if "summary" in node.children:
        return node
    if pilot is not None:
        raise UsageError(f'{pilot}: expected results of the experiment "{name}", but no cell is complete')
    return None


def _assumed(plan: Plan, outcome: Outcome) -> dict[str, float]:
    """Give what the spec assumes of an outcome."""
    settings = plan.matrix.experiment.analysis.assumed.get(outcome)
    return (
        {name: value for name, value in attrs.asdict(settings).items() if value is not None}
        if settings
        else {}
    )


def _answer(plan: Plan, question: PowerQuestion, tree: Any, pilot: Root | None) -> PowerAnswer:
    from store.analysis.assumed import variation

    assumptions = _assumed(plan, question.outcome)
    assumed = variation(question.outcome, assumptions)
    source = f"assumed ({'[analysis.assumed], ' if assumptions else ''}{DOCS})"
    if tree is None:
        return PowerAnswer(question, assumed, None, source)
    from store.analysis.pilot import read_pilot

    (level,) = question.levels
    try:
        pilot_data = read_pilot(tree, question.outcome, question.factor, question.baseline, level, assumed)
    except FAULTS:
        raise
    except StoreError as error:
        return PowerAnswer(question, assumed, None, f"{source}, for the pilot does not tell: {error}")
    if question.most is None and pilot_data.groups is not None:
        same = (pilot_data.examples / pilot_data.groups - 1) / (pilot_data.examples - 1)
        question = attrs.evolve(question, same_group=same)
        question = attrs.evolve(
            question, design=question.sized(question.design.seeds, question.design.examples)
        )
    seeds = f"{pilot_data.seeds} seed{'s' * (pilot_data.seeds > 1)}"
    words = f"pilot of {seeds} × {pilot_data.examples} examples in {pilot or plan.root}"
    if pilot_data.seeds < 2:
        return PowerAnswer(
            question, pilot_data.variation, None, f"{words}; the variance between seeds is {source}"
        )
    return PowerAnswer(question, pilot_data.variation, (pilot_data.low, pilot_data.high), words)
