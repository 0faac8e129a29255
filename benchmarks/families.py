"""How often is anything found where nothing changes, over a whole contrast or spec? For docs/honesty.md.

Simulated are three levels against one baseline at two positions, whose differences are alike, over 30 layers,
and the accuracies of the same levels; nothing changes, or one layer of one level and position does.
"""

from collections.abc import Iterator

import numpy as np
from attrs import evolve, frozen

from benchmarks.honesty import EXAMPLES, NULLS, SEEDS, Null, share
from benchmarks.parts import row, table
from store.analysis.components import Components, Floats
from store.analysis.inference import Estimate
from store.analysis.multiplicity import adjust

LEVELS, POSITIONS, AT_ONCE = 3, 2, 20
KINDS = (
    "seeds dominate", "one effect of a seed in all layers", "examples dominate",
    "examples dominate, layers alike (0.9)", "8 groups of examples", "5 % of values missing",
    "t with 5 df, seeds of unlike spread",
)  # fmt: skip
LOST = "a level lacks a seed"


@frozen
class Tests:
    """p values by [test, study]: of layers, and of accuracies."""

    layers: Floats
    layers_shared: Floats
    accuracies: Floats

    def found(self, *, spec: bool) -> Floats:
        """Return adjusted p values of layers, corrected over them or over accuracies as well."""
        rows = [self.layers_shared, self.accuracies] if spec else [self.layers_shared]
        plain = np.concatenate([self.layers, self.accuracies] if spec else [self.layers])
        return np.maximum(plain, adjust(np.concatenate(rows), 0))


def draw(null: Null, rng: np.random.Generator, seeds: int, studies: int) -> Floats:
    """Draw differences [level, seed, example, layer, position, study] from one baseline."""
    first, second = (
        np.stack([null.draw(rng, seeds, studies) for _ in range(LEVELS + 1)]) for _ in range(POSITIONS)
    )
    values = np.stack([first, np.sqrt(0.5) * (first + second)], axis=4)
    return np.asarray((values[1:] - values[:1]) / np.sqrt(2))


def right(rng: np.random.Generator, seeds: int, studies: int) -> Floats:
    """Draw differences of right and wrong [level, seed, example, study] at an accuracy of 0.9."""
    own = 0.5 * rng.normal(size=(LEVELS + 1, seeds, 1, studies))
    chance = 1 / (1 + np.exp(-(2.2 + own + rng.normal(size=(1, 1, EXAMPLES, studies)))))
    drawn = (rng.random((LEVELS + 1, seeds, EXAMPLES, studies)) < chance).astype(float)
    return np.asarray(drawn[1:] - drawn[:1])


def tests(values: Floats, answers: Floats, groups: Floats | None) -> Tests:
    """Return the p values of all tests."""
    own = [Estimate.of(Components.of(level, groups), 0) for level in values]
    shares = [Estimate.of(Components.of(level, groups), share=True, within=(-1, 1)) for level in answers]
    studies = values.shape[-1]
    return Tests(
        np.concatenate([level.p().reshape(-1, studies) for level in own]),
        np.concatenate([level.p_family().reshape(-1, studies) for level in own]),
        np.stack([level.p() for level in shares]),
    )


def studies_of(kind: str, seeds: int, studies: int, effect: float = 0.0) -> Iterator[Tests]:
    """Yield the tests of simulated studies, some at a time; effect: of one layer, in a seed's SDs."""
    rng = np.random.default_rng(seeds)
    null = evolve(NULLS["seeds dominate"]) if kind == LOST else NULLS[kind]
    for start in range(0, studies, AT_ONCE):
        number = min(AT_ONCE, studies - start)
        values = draw(null, rng, seeds, number)
        if kind == LOST and seeds > 2:
            values[0, -1] = np.nan
        values[1, :, :, 15, 0] += effect * np.sqrt(null.seed**2 + 1 / EXAMPLES)
        yield tests(values, right(rng, seeds, number), null.members())


def family_wise(kind: str, seeds: int, studies: int) -> tuple[float, float]:
    """Return how often anything is found over a contrast, and over a spec of two outcomes."""
    hits = np.concatenate(
        [
            np.stack([(own.found(spec=spec) < 0.05).any(axis=0) for spec in (False, True)], axis=1)
            for own in studies_of(kind, seeds, studies)
        ]
    )
    return float(hits[:, 0].mean()), float(hits[:, 1].mean())


def power(seeds: int, effect: float, studies: int) -> tuple[float, float]:
    """Return how often the one layer is found, corrected over the contrast, and over its layers alone."""
    place, alone = 30 * 2 + 15 * 2, []
    whole = []
    for own in studies_of("seeds dominate", seeds, studies, effect):
        layers = slice(30 * 2, 30 * 4, 2)
        whole.append(own.found(spec=False)[place] < 0.05)
        few = np.maximum(own.layers[layers], adjust(own.layers_shared[layers], 0))
        alone.append(few[15] < 0.05)
    return float(np.concatenate(whole).mean()), float(np.concatenate(alone).mean())


def family_table(studies: int) -> Iterator[str]:
    """Yield how often anything is found where nothing changes."""
    yield f"Anything below 0.05 over a contrast; over a spec of two outcomes; {studies} studies a cell:"
    yield ""
    yield from table("studies", [f"{seeds} seeds" for seeds in SEEDS])
    for kind in (*KINDS, LOST):
        found = [family_wise(kind, seeds, studies) for seeds in SEEDS]
        yield row(kind, [f"{share(contrast, studies)}; {spec:.3f}" for contrast, spec in found])


def power_table(studies: int) -> Iterator[str]:
    """Yield how often one layer is found; a quarter of the studies."""
    yield "One layer that differs is found, corrected over the contrast (over its layers alone):"
    yield ""
    effects = (2, 3, 4, 6)
    yield from table("seeds", [str(effect) for effect in effects])
    for seeds in SEEDS:
        found = [power(seeds, effect, max(studies // 4, 1)) for effect in effects]
        yield row(str(seeds), [f"{a:.2f} ({b:.2f})" for a, b in found])
