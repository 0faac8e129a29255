"""How often do all simultaneous intervals of a study hold? For docs/honesty.md.

Simulated are differences over 30 layers of which none, half or all change, by more or less as much as can be
found. Bounds are Bonferroni's, but towards 0 where Holm's correction finds more.
"""

from collections.abc import Iterator

import numpy as np

from benchmarks.honesty import EXAMPLES, LAYERS, NULLS, SEEDS, parts, share
from benchmarks.parts import row, table
from store.analysis.components import Components
from store.analysis.inference import Estimate, infer

KINDS = ("examples dominate", "8 groups of examples", "one effect of a seed in all layers")
CHANGED = (0, LAYERS // 2, LAYERS)
EFFECT = 4.0  # mean effect, in standard deviations of a layer's mean


def bands(kind: str, seeds: int, changed: int, studies: int) -> tuple[float, float, float]:
    """Return how often all bounds hold, and the shares of changed layers found by Holm's, Bonferroni's."""
    null, rng = NULLS[kind], np.random.default_rng([seeds, changed])
    deviation = np.sqrt(null.seed**2 / seeds + null.example**2 / EXAMPLES + 1 / (seeds * EXAMPLES))
    truth = np.zeros((LAYERS, 1))
    truth[:changed, 0] = EFFECT * deviation * np.linspace(0.5, 1.5, changed)
    held, holm, bonferroni = [], [], []
    for number in parts(studies):
        values = null.draw(rng, seeds, number) + truth
        found = infer(values, null.members(), family=0)
        outside = (found.simultaneous_low > truth) | (found.simultaneous_high < truth)
        held.append(~outside.any(axis=0))
        holm.append((found.p_adjusted < 0.05)[:changed])
        own = Estimate.of(Components.of(values, null.members()), 0)
        bonferroni.append((np.maximum(own.p(), LAYERS * own.p_family()) < 0.05)[:changed])
    power = [float(np.concatenate(own, axis=1).mean()) if changed else 0.0 for own in (holm, bonferroni)]
    return float(np.concatenate(held).mean()), power[0], power[1]


def band_table(studies: int) -> Iterator[str]:
    """Yield how often all simultaneous bounds of a study hold."""
    yield f"All bounds of {LAYERS} layers hold (changed layers found by Holm's; by Bonferroni's), {studies}"
    yield "studies a cell:"
    yield ""
    yield from table("studies, changed layers", [f"{seeds} seeds" for seeds in SEEDS])
    for kind in KINDS:
        for changed in CHANGED:
            found = [bands(kind, seeds, changed, studies) for seeds in SEEDS]
            power = [f" ({a:.2f}; {b:.2f})" if changed else "" for _, a, b in found]
            cells = [share(held, studies) + more for (held, *_), more in zip(found, power, strict=True)]
            yield row(f"{kind}, {changed}", cells)
