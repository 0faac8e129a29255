"""How often do intervals and tests keep what they promise, and what do they find? For docs/honesty.md.

Simulated are paired differences of 60 examples over 30 layers, with effects of seeds, of examples (or groups
of them) and of both together; and answers whose accuracy is near 0.5, 0.9 or 0.98.
"""

from collections.abc import Iterator

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from benchmarks.parts import row, run, table
from store.analysis.components import Components, Floats
from store.analysis.inference import infer
from store.analysis.proportions import share_bounds

EXAMPLES, LAYERS = 60, 30
SEEDS = (2, 3, 5, 10)
AT_ONCE = 100  # studies in memory


@frozen
class Null:
    """Differences that are 0 on average; numbers are standard deviations in those of the rest."""

    seed: float = 0.3
    example: float = 1.0
    alike: float = 0.0
    """Correlation of neighbouring layers."""
    groups: int = 0
    missing: float = 0.0
    values: str = "normal"

    def draw(self, rng: np.random.Generator, seeds: int, studies: int) -> Floats:
        """Draw differences [seed, example, layer, study]."""
        by_seed = self._noise(rng, (seeds, 1), studies)
        if self.values == "heavy":  # some trainings stray more than others
            by_seed = by_seed * np.exp(0.5 * rng.normal(size=(seeds, 1, 1, studies)))
        if self.values == "scales":  # layers react more or less
            by_seed = by_seed * np.exp(0.6 * rng.normal(size=(1, 1, LAYERS, 1)))
        if self.values == "one":  # all layers react alike, some the other way round
            by_seed = by_seed[:, :, :1] * rng.choice([-1.0, 1.0], size=(1, 1, LAYERS, studies))
        by_example = self._noise(rng, (1, EXAMPLES), studies)
        if self.groups:
            shared = self._noise(rng, (1, self.groups), studies)[:, self.members()]
            by_example = np.sqrt(0.5) * (shared + by_example)
        rest = self._noise(rng, (seeds, EXAMPLES), studies)
        found = self.seed * by_seed + self.example * by_example + rest
        found[rng.random(found.shape) < self.missing] = np.nan
        return found

    def members(self) -> NDArray[np.intp] | None:
        """Return the group of each example, None where each is its own."""
        return np.arange(EXAMPLES) % self.groups if self.groups else None

    def _noise(self, rng: np.random.Generator, units: tuple[int, int], studies: int) -> Floats:
        shape = (*units, LAYERS, studies)
        if self.values == "heavy":
            return np.asarray(rng.standard_t(5, shape) * np.sqrt(3 / 5))
        if self.values == "skewed":
            return rng.exponential(size=shape) - 1
        found = rng.normal(size=shape)
        for layer in range(1, LAYERS if self.alike else 0):
            own = np.sqrt(1 - self.alike**2) * found[..., layer, :]
            found[..., layer, :] = self.alike * found[..., layer - 1, :] + own
        return found


NULLS = {
    "seeds dominate": Null(1.0, 0.0),
    "seeds dominate, layers alike (0.9)": Null(1.0, 0.0, 0.9),
    "one effect of a seed in all layers": Null(1.0, 0.0, values="one"),
    "seeds' effects differ in size by layer": Null(1.0, 0.0, values="scales"),
    "examples dominate": Null(0.1),
    "examples dominate, layers alike (0.9)": Null(0.1, alike=0.9),
    "8 groups of examples": Null(0.1, groups=8),
    "20 groups, layers alike (0.9)": Null(alike=0.9, groups=20),
    "5 % of values missing": Null(missing=0.05),
    "t with 5 df, seeds of unlike spread": Null(values="heavy"),
    "exponential": Null(values="skewed"),
}
EFFECTS = (1, 2, 3, 4, 6)


def parts(studies: int) -> Iterator[int]:
    """Yield how many studies are drawn at a time."""
    for start in range(0, studies, AT_ONCE):
        yield min(AT_ONCE, studies - start)


def levels(null: Null, seeds: int, studies: int) -> tuple[float, float]:
    """Return how often a single layer is below 0.05 alone, and how often any is after correction."""
    rng = np.random.default_rng(seeds)
    alone, any_ = [], []
    for number in parts(studies):
        found = infer(null.draw(rng, seeds, number), null.members(), family=0)
        alone.append((found.p < 0.05).mean(axis=0))
        any_.append((found.p_adjusted < 0.05).any(axis=0))
    return float(np.concatenate(alone).mean()), float(np.concatenate(any_).mean())


def power(seeds: int, effect: float, studies: int) -> float:
    """Return how often a layer is found that differs by `effect` standard deviations of a seed's mean."""
    rng, null = np.random.default_rng(seeds), NULLS["seeds dominate"]
    hits = []
    for number in parts(studies):
        values = null.draw(rng, seeds, number)
        values[:, :, LAYERS // 2] += effect * np.sqrt(1 + 1 / EXAMPLES)
        hits.append(infer(values, family=0).p_adjusted[LAYERS // 2] < 0.05)
    return float(np.concatenate(hits).mean())


def accuracies(accuracy: float, examples: int, seeds: int, studies: int) -> tuple[float, float, float]:
    """Return coverage of a difference of 4 points, its mean width, and coverage of an accuracy."""
    rng = np.random.default_rng(seeds)
    level = np.log([accuracy / (1 - accuracy), (accuracy - 0.04) / (1.04 - accuracy)]).reshape(2, 1, 1, 1)

    def chance(shape: tuple[int, int, int]) -> Floats:
        between = 0.5 * (seeds > 1) * rng.normal(size=(2, shape[0], 1, shape[2]))
        return np.asarray(1 / (1 + np.exp(-(level + rng.normal(size=(2, 1, *shape[1:])) + between))))

    truth = chance((1, 1, 10**6)).mean(axis=(1, 2, 3))
    right = (rng.random((2, seeds, examples, studies)) < chance((seeds, examples, studies))).astype(float)
    found = infer(right[1] - right[0], share=True, within=(-1, 1))
    held = (found.low <= truth[1] - truth[0]) & (found.high >= truth[1] - truth[0])
    low, high = share_bounds(Components.of(right[0]), 0.95)
    alone = (low <= truth[0]) & (high >= truth[0])
    return float(held.mean()), float((found.high - found.low).mean()), float(alone.mean())


def share(value: float, studies: int) -> str:
    """Return a share with its standard error."""
    return f"{value:.3f} ± {np.sqrt(value * (1 - value) / studies):.3f}"


def level_table(studies: int) -> Iterator[str]:
    """Yield how often anything is found where nothing changes."""
    yield f"Any of 30 layers below 0.05 after correction (a single one alone), {studies} studies a cell:"
    yield ""
    yield from table("studies", [f"{seeds} seeds" for seeds in SEEDS])
    for name, null in NULLS.items():
        found = [levels(null, seeds, studies) for seeds in SEEDS]
        yield row(name, [f"{share(any_, studies)} ({alone:.3f})" for alone, any_ in found])


def power_table(studies: int) -> Iterator[str]:
    """Yield how often one layer is found; a quarter of the studies."""
    yield "A layer that differs by so many standard deviations of a seed's mean is found:"
    yield ""
    yield from table("seeds", [str(own) for own in EFFECTS])
    for seeds in SEEDS:
        yield row(str(seeds), [f"{power(seeds, own, max(studies // 4, 1)):.2f}" for own in EFFECTS])


def accuracy_table(studies: int) -> Iterator[str]:
    """Yield how often intervals of accuracies and of their differences cover them."""
    yield "The interval of a difference of 4 points covers it (its width); that of an accuracy:"
    yield ""
    yield from table("accuracy, examples", [f"{seeds} seed{'s' * (seeds > 1)}" for seeds in (1, *SEEDS)])
    for accuracy in (0.5, 0.9, 0.98):
        for examples in (40, 200):
            found = [accuracies(accuracy, examples, seeds, studies) for seeds in (1, *SEEDS)]
            cells = [f"{held:.3f} ({width:.2f}); {alone:.3f}" for held, width, alone in found]
            yield row(f"{accuracy}, {examples}", cells)


def main(arguments: list[str] | None = None) -> None:
    from benchmarks import bands, borders, families, logistic, looks, prompt_wordings

    parts = {
        "levels": level_table,
        "power": power_table,
        "bands": bands.band_table,
        "accuracies": accuracy_table,
        "borders": borders.border_table,
        "families": families.family_table,
        "families-power": families.power_table,
        "looks": looks.look_table,
        "widths": looks.width_table,
        "logistic": logistic.logistic_table,
        "wordings": prompt_wordings.wording_table,
    }
    run(parts, __doc__, arguments)


if __name__ == "__main__":
    main()
