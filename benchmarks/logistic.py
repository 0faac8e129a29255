"""How often does the logistic mixed model cover the true odds ratio, and find one? For docs/honesty.md.

Simulated are 60 examples with normal effects on the log odds of examples (or 12 groups of them) and of
trainings; and examples or groups that react to the level, some more than others.
"""

from collections.abc import Iterator

import numpy as np
from scipy import special

from benchmarks.honesty import share
from benchmarks.parts import row, table
from store.analysis.logistic import fitted

SEEDS, RATES = (3, 5, 10), (0.1, 0.5, 0.8, 0.95)
EFFECT = 1.0  # of a true difference, in log odds: an odds ratio of 2.7
EXAMPLES, GROUPS = 60, 12
TRAINING, REACTION = 0.4, 0.7  # standard deviations in log odds
KINDS = {
    "examples": (False, 0.0),
    "12 groups of examples": (True, 0.0),
    "examples that react": (False, REACTION),
    "groups that react": (True, REACTION),
}


def covered(kind: str, rate: float, seeds: int, effect: float, studies: int) -> tuple[float, float, float]:
    """Return how often the true odds ratio is covered, how often 1 is not, the factor from low to high."""
    rng = np.random.default_rng([seeds, int(100 * rate)])
    grouped, reaction = KINDS[kind]
    members = np.arange(EXAMPLES) % GROUPS
    held, width, truth = [], [], np.exp(effect)
    found_ = []
    for _ in range(studies):
        own, shared, slope = rng.normal(size=(3, EXAMPLES))
        if grouped:
            own, slope = np.sqrt(0.5) * (own + shared[members]), slope[members]
        level = 1.2 * special.logit(rate) + own + TRAINING * rng.normal(size=(2, seeds, 1))
        level[1] += reaction * slope + effect
        right = (rng.random(level.shape) < special.expit(level)).astype(float)
        found = fitted(
            right.reshape(2 * seeds, -1), list(range(2 * seeds)), members if grouped else None, 0.95
        )
        held.append(found["low"] <= truth <= found["high"])
        found_.append(found["p_value"] < 0.05)
        width.append(found["high"] / found["low"])
    return float(np.mean(held)), float(np.mean(found_)), float(np.median(width))


def logistic_table(studies: int) -> Iterator[str]:
    """Yield coverage and widths; a tenth of the studies, for each takes a third of a second."""
    studies = max(studies // 10, 1)
    yield f"The interval of an odds ratio of 1 covers it (high / low); that of {np.exp(EFFECT):.1f} does (it"
    yield f"is found); {studies} studies a cell:"
    yield ""
    yield from table("right answers", [f"{seeds} seeds" for seeds in SEEDS])
    for kind in KINDS:
        for rate in RATES:
            cells = []
            for seeds in SEEDS:
                none, _, wide = covered(kind, rate, seeds, 0.0, studies)
                held, power, _ = covered(kind, rate, seeds, EFFECT, studies)
                cells.append(f"{share(none, studies)} ({wide:.1f}); {held:.2f} ({power:.2f})")
            yield row(f"{rate}, {kind}", cells)
