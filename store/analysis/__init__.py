"""What changed, in which layer, how sure: functions from a store's data to labelled results.

Each takes the node of an experiment, of a stage, or a dataset selected from one, and returns a dataset with
units and long_name, whose attribute `method` says in a sentence how it was made. They are also methods of
`tree.ablation` and `dataset.ablation`. docs/analysis.md has examples and reasons.

Names are imported when first used: a plan, which asks for its power alone, must not cost the import of
xarray. No module here has the name of a function.
"""

from typing import TYPE_CHECKING

from specs.common.lazy_names import lazy_names

if TYPE_CHECKING:
    from store.analysis.calibration import calibration_curve
    from store.analysis.changes import change, contrast, relative_entropy
    from store.analysis.cluster import clusters
    from store.analysis.condition_means import divergence_from, means
    from store.analysis.declared import contrasts
    from store.analysis.directions import steering
    from store.analysis.evaluation import confusion, transfer_matrix
    from store.analysis.factorial import effects
    from store.analysis.faithfulness import counterfactual_effects
    from store.analysis.frames import dataframe
    from store.analysis.grids import patching_grid
    from store.analysis.interventions import intervention_effects, mediation
    from store.analysis.lenses import lens_agreement
    from store.analysis.logistic import accuracy_model
    from store.analysis.nodes import indexed, select
    from store.analysis.permutation import sign_flip
    from store.analysis.prompt_wordings import wordings
    from store.analysis.ranks import rank_trajectory
    from store.analysis.representations import similarity
    from store.analysis.signatures import Thresholds, detect_failures
    from store.analysis.sizes import effect_sizes, mcnemar
    from store.analysis.specialisation import layer_specialisation
    from store.analysis.survival import saturation
    from store.analysis.training_steps import along, onset
    from store.analysis.untrained import references
    from store.analysis.variance import variance_by_interval

_HOMES = {
    "Thresholds": "signatures",
    "accuracy_model": "logistic",
    "along": "training_steps",
    "calibration_curve": "calibration",
    "change": "changes",
    "clusters": "cluster",
    "confusion": "evaluation",
    "contrast": "changes",
    "contrasts": "declared",
    "counterfactual_effects": "faithfulness",
    "dataframe": "frames",
    "detect_failures": "signatures",
    "divergence_from": "condition_means",
    "effect_sizes": "sizes",
    "effects": "factorial",
    "indexed": "nodes",
    "intervention_effects": "interventions",
    "layer_specialisation": "specialisation",
    "lens_agreement": "lenses",
    "mcnemar": "sizes",
    "means": "condition_means",
    "mediation": "interventions",
    "onset": "training_steps",
    "patching_grid": "grids",
    "rank_trajectory": "ranks",
    "references": "untrained",
    "relative_entropy": "changes",
    "saturation": "survival",
    "select": "nodes",
    "sign_flip": "permutation",
    "similarity": "representations",
    "steering": "directions",
    "transfer_matrix": "evaluation",
    "variance_by_interval": "variance",
    "wordings": "prompt_wordings",
}

__all__ = [
    "Thresholds",
    "accuracy_model",
    "along",
    "calibration_curve",
    "change",
    "clusters",
    "confusion",
    "contrast",
    "contrasts",
    "counterfactual_effects",
    "dataframe",
    "detect_failures",
    "divergence_from",
    "effect_sizes",
    "effects",
    "indexed",
    "intervention_effects",
    "layer_specialisation",
    "lens_agreement",
    "mcnemar",
    "means",
    "mediation",
    "onset",
    "patching_grid",
    "rank_trajectory",
    "references",
    "relative_entropy",
    "saturation",
    "select",
    "sign_flip",
    "similarity",
    "steering",
    "transfer_matrix",
    "variance_by_interval",
    "wordings",
]


__getattr__, __dir__ = lazy_names(__name__, {name: f"store.analysis.{home}" for name, home in _HOMES.items()})
