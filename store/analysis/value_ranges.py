"""In which ranges outcomes lie, and which of them are shares: what their intervals keep to."""

import numpy as np
import xarray as xr

from specs.common.names import TASK_STAGES
from store.analysis.inference import Range
from store.analysis.samples import of_samples

FLAGS = "flag_values"
"""The attribute of variables that have no other values than those listed there (CF conventions)."""

AGREEMENT, OVERLAP = "lens_agreement", "lens_overlap"
SHARES = frozenset({"correct", "generated_correct", "majority_correct", "flipped", "followed", AGREEMENT})
UNIT, POSITIVE = (0.0, 1.0), (0.0, np.inf)
RANGES = {
    **dict.fromkeys((*SHARES, "max_prob", "watch_mass", "top_mass", "ece", "unparsed_share", OVERLAP), UNIT),
    "probability": UNIT,
    **dict.fromkeys(("absolute_error", "nll", "entropy", "kl_final", "kl_against", "train_loss"), POSITIVE),
    **dict.fromkeys(("watch_entropy", "renyi_2", "renyi_inf", "top_entropy"), POSITIVE),
    **dict.fromkeys(("label_surprisal", "next_surprisal"), POSITIVE),
    **dict.fromkeys(("cross_entropy", "base_cross_entropy", "kl_base"), POSITIVE),
    "brier": (0.0, 2.0),
    **dict.fromkeys(("js_final", "js_against"), (0.0, np.log(2))),
}
OF_METRICS = {"accuracy": UNIT, "macro_f1": UNIT, "mae": POSITIVE, "qwk": (-1.0, 1.0)}


def is_share(name: str, values: xr.DataArray) -> bool:
    """Return whether a variable, or one whose differences these are, is 0 or 1 of every example."""
    return name in SHARES or values.attrs.get(FLAGS) == [0, 1]


def value_range(name: str, *, share: bool = False) -> Range:
    """Return the range in which a variable lies, and so its mean and the bounds of it."""
    ends = (range_ for metric, range_ in OF_METRICS.items() if name == metric or name.endswith(f"_{metric}"))
    if share or of_samples(name):
        return UNIT
    if name.startswith((*TASK_STAGES,)):  # whose metrics may be called so, and be percentages
        return -np.inf, np.inf
    return RANGES.get(name) or next(ends, (-np.inf, np.inf))


def change_range(name: str, *, share: bool = False) -> Range:
    """Return the range in which differences of a variable lie."""
    low, high = value_range(name, share=share)
    return low - high, high - low
