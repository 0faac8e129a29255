"""How often is a null rejected where wordings of a prompt are random, too? For docs/honesty.md.

Simulated are paired differences of 20 examples, tested in 3 to 10 wordings by 2 to 5 seeds, with effects of
wordings, seeds, examples, of wordings with seeds and with examples, and of all together.
"""

from collections.abc import Callable, Iterator

import numpy as np
import xarray as xr
from attrs import frozen

from benchmarks.parts import row, table
from store.analysis.components import Floats
from store.analysis.prompt_wordings import Block, Crossed

EXAMPLES, AT_ONCE = 20, 250
DESIGNS = tuple((wordings, seeds) for wordings in (3, 5, 10) for seeds in (2, 5))


@frozen
class Scene:
    """Standard deviations of the effects, in those of the rest."""

    wording: float
    seed: float
    example: float
    with_seeds: float
    with_examples: float


SCENES = {
    "wordings dominate": Scene(1.0, 0.1, 1.0, 0.1, 0.3),
    "seeds as much": Scene(1.0, 1.0, 1.0, 0.3, 0.3),
    "examples, too": Scene(0.2, 0.2, 1.0, 0.1, 0.5),
    "reactions of trainings to wordings alone": Scene(0.0, 0.0, 0.0, 1.0, 0.0),
}
Draw = Callable[[np.random.Generator, tuple[int, ...]], Floats]
EFFECTS: dict[str, Draw] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "heavy tails (t, 3 df)": lambda rng, size: rng.standard_t(3, size=size) / np.sqrt(3),
    "unlike spreads": lambda rng, size: rng.normal(size=size) * np.exp(rng.normal(size=size)),
    "lognormal": lambda rng, size: (rng.lognormal(size=size) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e),
    "one in ten fails": lambda rng, size: ((rng.random(size) < 0.1) - 0.1) / 0.3,
}


def draw(
    kind: str, scene: Scene, wordings: int, seeds: int, studies: int, rng: np.random.Generator
) -> Floats:
    """Draw differences [seed, wording, example, study] of mean 0."""
    normal, by = rng.normal, (1, wordings, 1, studies)
    scale = np.exp(normal(size=by)) if kind == "unlike spreads" else np.ones(by)
    rest = scene.with_seeds * normal(size=(seeds, wordings, 1, studies))
    rest = rest + scene.with_examples * normal(size=(1, wordings, EXAMPLES, studies))
    rest = rest + normal(size=(seeds, wordings, EXAMPLES, studies))
    drawn = scene.seed * normal(size=(seeds, 1, 1, studies)) + scene.wording * EFFECTS[kind](rng, by)
    return np.asarray(drawn + scene.example * normal(size=(1, 1, EXAMPLES, studies)) + scale * rest)


def rejected(kind: str, scene: Scene, wordings: int, seeds: int, studies: int) -> float:
    """Return the share of studies with p < 0.05."""
    rng, p = np.random.default_rng(0), []
    for start in range(0, studies, AT_ONCE):
        values = draw(kind, scene, wordings, seeds, min(AT_ONCE, studies - start), rng)
        like = xr.DataArray(values[0, 0, 0], dims="study")
        names = [f"w{number}" for number in range(wordings)]
        block = Block("", values, names, np.ones(values.shape[-1]), None, like)
        p.append(Crossed.of(block, "entropy", True).estimate.p())
    return float(np.mean(np.concatenate(p) < 0.05))


def wording_table(studies: int) -> Iterator[str]:
    """Yield the table of rejected nulls by distribution, scene, wordings and seeds."""
    yield from table("wordings", [f"{wordings} wordings, {seeds} seeds" for wordings, seeds in DESIGNS])
    for kind in EFFECTS:
        for name, scene in SCENES.items():
            cells = [f"{rejected(kind, scene, *design, studies):.3f}" for design in DESIGNS]
            yield row(f"{kind}; {name}", cells)
