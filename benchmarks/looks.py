"""How often is a null ever rejected when results are looked at while seeds are added? For docs/honesty.md.

Simulated are differences of 60 examples over 20 layers, looked at with every number of seeds from the first
to 10: the seeds of a look are those of the one before and one more, on the same examples.
"""

from collections.abc import Iterator

import numpy as np

from benchmarks.honesty import NULLS, share
from benchmarks.parts import row, table
from store.analysis.components import Components, Floats
from store.analysis.inference import Estimate
from store.analysis.monitoring import Looks, Monitoring
from store.analysis.multiplicity import adjust

LAST, LAYERS, AT_ONCE = 10, 20, 20
KINDS = (
    "seeds dominate", "one effect of a seed in all layers", "examples dominate", "8 groups of examples",
    "5 % of values missing", "t with 5 df, seeds of unlike spread", "exponential",
)  # fmt: skip
DESIGNS: dict[str, tuple[int, Looks]] = {
    "fixed, 3 to 10": (3, None),
    "spending, 3 to 10": (3, tuple(range(3, LAST + 1))),
    "spending, 3, 5 and 10": (3, (3, 5, 10)),
    "anytime, 2 to 10": (2, "anytime"),
}


def ever(kind: str, design: str, studies: int) -> tuple[float, float]:
    """Return how often a single layer is ever below 0.05 alone, and any layer ever after correction."""
    first, looks = DESIGNS[design]
    null, rng, monitoring = NULLS[kind], np.random.default_rng(0), Monitoring.of(looks)
    alone, any_ = [], []
    for start in range(0, studies, AT_ONCE):
        values = null.draw(rng, LAST, min(AT_ONCE, studies - start))[:, :, :LAYERS]
        once, ever_ = np.zeros(values.shape[2:], bool), np.zeros(values.shape[3], bool)
        for seeds in range(first, LAST + 1):
            if monitoring.looks and seeds not in monitoring.looks:
                continue
            own = Estimate.of(Components.of(values[:seeds], null.members()), 0, monitoring=monitoring)
            p, start_ = own.p(), own.p_family()
            once |= p < 0.05
            ever_ |= (np.maximum(p, adjust(start_, 0)) < 0.05).any(axis=0)
        alone.append(once.mean(axis=0))
        any_.append(ever_)
    return float(np.concatenate(alone).mean()), float(np.concatenate(any_).mean())


def widths(design: str) -> Floats:
    """Return intervals' widths with 3, 5 and 10 seeds, seeds dominating, in those of a single look."""
    seeds = np.array([3, 5, 10])
    rng, monitoring = np.random.default_rng(0), Monitoring.of(DESIGNS[design][1])
    found = []
    for number in seeds:
        values = NULLS["seeds dominate"].draw(rng, number, 20)
        own = Components.of(values)
        both = [Estimate.of(own, monitoring=how).bounds(0.05) for how in (monitoring, Monitoring())]
        found.append(np.mean((both[0][1] - both[0][0]) / (both[1][1] - both[1][0])))
    return np.array(found)


def look_table(studies: int) -> Iterator[str]:
    """Yield how often anything is ever found where nothing changes."""
    yield f"A layer is ever below 0.05, alone; any of {LAYERS}, corrected; {studies} studies a cell:"
    yield ""
    yield from table("studies", list(DESIGNS))
    for kind in KINDS:
        found = [ever(kind, design, studies) for design in DESIGNS]
        yield row(kind, [f"{alone:.3f}; {share(any_, studies)}" for alone, any_ in found])


def width_table(studies: int) -> Iterator[str]:
    """Yield how wide intervals are, of twenty studies."""
    yield from table("", list(DESIGNS))
    ratios = [" / ".join(f"{own:.2f}" for own in widths(design)) for design in DESIGNS]
    yield row("width with 3 / 5 / 10 seeds", ratios)
