"""Is the power that a plan predicts the power that studies have? The tables of docs/power.md.

Simulated are paired differences with effects of seeds, of examples (or groups of them) and of both together:
normal ones, heavy-tailed ones whose trainings differ in how much they stray, and accuracies of two models
whose log-odds vary in these ways. What is predicted takes only their standard deviations.
"""

import argparse
from functools import lru_cache

import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

from benchmarks.honesty import share
from store.analysis.components import Components, Floats
from store.analysis.inference import infer
from store.analysis.power import Design, Variation, corrected, pointwise

SEEDS = (2, 3, 5, 10)
LARGE = Design(200, 1500, 300)


@frozen
class Study:
    """How differences vary; of accuracies the numbers are of log-odds, around that of `accuracy`."""

    seed: float
    example: float
    rest: float
    values: str = "normal"
    within_group: float = 0.0
    accuracy: float = 0.5
    """Of the baseline; from 0.7 on the other model is the worse one."""

    def draw(self, rng: np.random.Generator, design: Design, studies: int, difference: float = 0.0) -> Floats:
        """Draw differences [seed, example, study]; examples of group g are g, g + groups, …"""
        seeds = design.seeds
        by_seed = self._noise(rng, (2, seeds, 1, studies))
        if self.values == "heavy":  # some trainings stray more than others
            by_seed = by_seed * np.exp(0.4 * rng.normal(size=(2, seeds, 1, studies)) - 0.16)
        by_example = self._by_example(rng, design, 1, studies)
        rest = self._by_example(rng, design, seeds, studies)
        if self.values != "binary":
            # The two models' own effects of seeds come together as one of their difference.
            return difference + self.seed * by_seed[0] + self.example * by_example + self.rest * rest
        shared = self.example * by_example + self.log_odds
        level = np.stack([shared, shared + _shift(self, difference)]) + self.seed * by_seed
        right = rng.random((2, seeds, design.examples, studies)) < 1 / (1 + np.exp(-level))
        return np.asarray(right[1].astype(float) - right[0])

    @property
    def log_odds(self) -> float:
        """Return the baseline's log-odds in an average example."""
        return float(np.log(self.accuracy / (1 - self.accuracy)))

    def members(self, design: Design) -> NDArray[np.intp] | None:
        """Return the group of each example, None where each is its own."""
        return None if design.groups is None else np.arange(design.examples) % round(design.groups)

    def found(
        self, rng: np.random.Generator, design: Design, difference: float, studies: int
    ) -> NDArray[np.bool_]:
        """Return in which studies a difference is found, by the inference of `change`."""
        values = self.draw(rng, design, studies, difference)
        options = {"share": True, "within": (-1, 1)} if self.values == "binary" else {}
        return np.asarray(infer(values, self.members(design), **options).p < 0.05)  # type: ignore[arg-type]

    @lru_cache(maxsize=64)  # noqa: B019 - studies are few
    def variation(self) -> Variation:
        """Return what a plan would be told: of accuracies, what a very large pilot measures."""
        if self.values != "binary":
            return Variation(self.seed, self.example, self.rest, self.within_group)
        values = self.draw(np.random.default_rng(0), LARGE, 4)
        alone, whole = Components.of(values), Components.of(values, self.members(LARGE))
        seed, example, rest = alone.variances.mean(axis=1)
        n, m = LARGE.seeds, LARGE.examples
        effect = (whole.variances[1] / alone.variances[1]).mean()
        return Variation(
            float(np.sqrt(max(seed - rest, 0) * n)),
            float(np.sqrt(max(example - rest, 0) * m)),
            float(np.sqrt(rest * n * m)),
            float(np.clip((effect - 1) / (m / LARGE.units - 1), 0, 1)),
            discordant=float(alone.size.mean()),
        )

    def _by_example(self, rng: np.random.Generator, design: Design, seeds: int, studies: int) -> Floats:
        own = self._noise(rng, (seeds, design.examples, studies))
        members = self.members(design)
        if members is None:
            return own
        shared = self._noise(rng, (seeds, round(design.units), studies))[:, members]
        return np.asarray(np.sqrt(self.within_group) * shared + np.sqrt(1 - self.within_group) * own)

    def _noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        if self.values == "heavy":
            return np.asarray(rng.standard_t(5, shape) * np.sqrt(3 / 5))
        return rng.normal(size=shape)


def _shift(study: Study, difference: float) -> float:
    """Return the shift of log-odds that raises, or lowers, the mean accuracy by a difference."""
    difference = -difference if study.accuracy >= 0.7 else difference
    rng = np.random.default_rng(1)
    level = study.log_odds + np.hypot(study.seed, study.example) * rng.normal(size=20_000)
    base = (1 / (1 + np.exp(-level))).mean()
    low, high = -20.0, 20.0
    for _ in range(50):
        middle = (low + high) / 2
        below = (1 / (1 + np.exp(-level - middle))).mean() - base < difference
        low, high = (middle, high) if below else (low, middle)
    return low


STUDIES = {
    "normal, seeds matter": Study(0.3, 1.0, 1.0),
    "normal, examples matter": Study(0.05, 1.0, 1.0),
    "t with 5 df, seeds of unlike spread": Study(0.3, 1.0, 1.0, "heavy"),
    "accuracies near 0.5": Study(0.15, 1.0, 0.0, "binary"),
    "accuracies near 0.9, falling": Study(0.15, 1.0, 0.0, "binary", accuracy=0.95),
}
SIZES = ((20, None), (60, None), (200, None), (60, 12), (200, 40))


def layers(design: Design, variation: Variation, studies: int) -> tuple[float, float]:
    """Return the detectable difference in one of some layers, and how often it is found."""
    difference = corrected(design, variation).detectable()
    rng, hits = np.random.default_rng(2), []
    for _ in range(studies // 20):

        def noise(*shape: int) -> Floats:
            found = rng.normal(size=(*shape, design.layers, 20))
            near = variation.between_layers
            for layer in range(1, design.layers):
                found[:, :, layer] = near * found[:, :, layer - 1] + np.sqrt(1 - near**2) * found[:, :, layer]
            return found

        values = variation.seed * noise(design.seeds, 1) + variation.example * noise(1, design.examples)
        values += variation.rest * noise(design.seeds, design.examples)
        values[:, :, design.layers // 2] += difference
        hits.append(infer(values, family=0).p_adjusted[design.layers // 2] < 0.05)
    return difference, float(np.mean(hits))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=2000)
    studies = parser.parse_args().studies
    print(f"Power of the difference that is to be found with 0.8 (and of its half), {studies} studies:\n")
    print("| differences | examples | " + " | ".join(f"{seeds} seeds" for seeds in SEEDS) + " |")
    print("| --- | --- |" + " --- |" * len(SEEDS))
    for name, study in STUDIES.items():
        for examples, groups in SIZES:
            cells = [_cell(study, seeds, examples, groups, studies) for seeds in SEEDS]
            words = f"{examples}" if groups is None else f"{examples} in {groups} groups"
            print(f"| {name} | {words} | " + " | ".join(cells) + " |", flush=True)
    print("\nOne of 31 layers, after Holm's correction:\n")
    print("| differences | " + " | ".join(f"{seeds} seeds" for seeds in SEEDS) + " |")
    print("| --- |" + " --- |" * len(SEEDS))
    for near in (0.0, 0.9):
        for seed in (0.3, 0.05):
            variation = Variation(seed, 1.0, 1.0, between_layers=near)
            found = [layers(Design(n, 60, layers=31, tests=31), variation, studies // 5) for n in SEEDS]
            cells = [f"{size:.2f}: {share(rate, studies // 5)}" for size, rate in found]
            print(f"| neighbours {near}, seeds {seed} | " + " | ".join(cells) + " |", flush=True)


def _cell(study: Study, seeds: int, examples: int, groups: int | None, studies: int) -> str:
    own = study if groups is None else evolve(study, within_group=0.4)
    design = Design(seeds, examples, groups)
    power = pointwise(design, own.variation())
    difference = power.detectable()
    if own.values == "binary" and difference > 0.45:  # more than there is to gain
        return "beyond 0.45"
    rng = np.random.default_rng(seeds)
    found = own.found(rng, design, difference, studies).mean()
    half = own.found(rng, design, difference / 2, studies).mean()
    return f"{difference:.2f}: {share(found, studies)} ({half:.2f}; {power.of(difference / 2):.2f})"


if __name__ == "__main__":
    main()
