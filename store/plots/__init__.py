"""Figures for papers, one function for each, named after the analysis whose result it draws.

Each takes that result (or a stage's data) and, if it shall draw into a larger figure, an Axes; it returns the
Axes. Without one it makes a pyplot figure as wide as a column. `panels` sets several side by side, `save`
writes PDF and SVG whose text can be edited. docs/analysis.md has examples.
"""

from specs.common.lazy_names import public_names
from store.plots.attributions import attribution
from store.plots.curves import calibration_curve, training
from store.plots.directions import steering
from store.plots.grids import patching_grid
from store.plots.interventions import intervention_effects
from store.plots.layers import along, change, lens_agreement, means, rank_trajectory, saturation
from store.plots.matrices import confusion, transfer_matrix
from store.plots.panels import panels
from store.plots.style import COLOURS, COLUMN, WIDE, save
from store.plots.tokens import layer_tokens

__all__ = [
    "COLOURS",
    "COLUMN",
    "WIDE",
    "along",
    "attribution",
    "calibration_curve",
    "change",
    "confusion",
    "intervention_effects",
    "layer_tokens",
    "lens_agreement",
    "means",
    "panels",
    "patching_grid",
    "rank_trajectory",
    "saturation",
    "save",
    "steering",
    "training",
    "transfer_matrix",
]

__dir__ = public_names(__name__)
