"""What plug-ins are made of: one class for each kind of entry point. docs/extending.md has examples.

Names are imported when they are first used, so that a plug-in that a plan looks at needs no torch.
"""

from typing import TYPE_CHECKING

from specs.common.lazy_names import lazy_names

if TYPE_CHECKING:
    from engine.data.data_sets import DataSet
    from engine.data.public_sets import PublicSet
    from engine.running.executors.make import ExecutorKind
    from engine.stages.metrics import Metric, Predictions
    from engine.stages.statistics import LayerStates, Statistic
    from engine.text.pseudo_explanations import Corpus, Draw, PseudoExplanation
    from store.report.panels import Panel, PanelTable, ReportSource

_HOMES = {
    "Corpus": "engine.text.pseudo_explanations",
    "DataSet": "engine.data.data_sets",
    "Draw": "engine.text.pseudo_explanations",
    "ExecutorKind": "engine.running.executors.make",
    "LayerStates": "engine.stages.statistics",
    "Metric": "engine.stages.metrics",
    "Panel": "store.report.panels",
    "PanelTable": "store.report.panels",
    "Predictions": "engine.stages.metrics",
    "PseudoExplanation": "engine.text.pseudo_explanations",
    "PublicSet": "engine.data.public_sets",
    "ReportSource": "store.report.panels",
    "Statistic": "engine.stages.statistics",
}

__all__ = [
    "Corpus",
    "DataSet",
    "Draw",
    "ExecutorKind",
    "LayerStates",
    "Metric",
    "Panel",
    "PanelTable",
    "Predictions",
    "PseudoExplanation",
    "PublicSet",
    "ReportSource",
    "Statistic",
]


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
