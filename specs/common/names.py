"""Words that specs, stores and commands share."""

from typing import Literal, get_args

NOT_APPLICABLE = "-"
"""The level of a factor in a cell that it does not apply to."""

BUCKET_SCHEMES = ("s3", "gs", "az")
"""Schemes of the URLs that a store in a bucket may have."""

BUCKET_URLS = ", ".join(f"{scheme}://BUCKET/PREFIX" for scheme in BUCKET_SCHEMES)
"""What such a URL looks like, for messages."""

AGREEMENT = ("accuracy", "macro_f1", "mae", "qwk")
"""Metrics of predicted labels against the true ones."""

EXAMPLE_OUTCOMES = ("correct", "generated_correct", "absolute_error", "brier", "nll")
"""Outcomes of single test examples, from the evaluation."""

NEUTRAL_OUTCOMES = ("cross_entropy", "kl_base")
"""Outcomes of chunks of neutral text."""

OUTCOME_KEYS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("correct", "absolute_error", "brier", "nll"), ("evaluate.scoring", "loglikelihood")),
    "generated_correct": ("evaluate.scoring", "generation"),
    **dict.fromkeys(NEUTRAL_OUTCOMES, ("evaluate.neutral_text", "")),
}
"""Outcome → the key of a spec that makes results hold it, and what it has to list; "": it has to be set."""

UNTRAINED_STAGES = ("base", "base_tasks", "base_inspect")
"""Stages of the model without adapter; a cell is whole without them."""

FitStage = Literal["lens", "jacobian"]
FIT_STAGES: tuple[FitStage, ...] = get_args(FitStage)
"""Stages that fit a lens, on a cell's trained model or once for all on the one without adapter."""

TASK_PREFIX = "task_"
"""How numbers of tasks of lm-evaluation-harness begin."""

INSPECT_PREFIX = "inspect_"
"""How numbers of tasks of Inspect begin."""

TASK_STAGES = {TASK_PREFIX: "tasks", INSPECT_PREFIX: "inspect"}
"""How numbers of tasks begin → the stage that has them."""

LENS_STATISTICS = (
    "logsumexp", "entropy", "max_prob", "kl_final", "js_final", "watch_mass", "watch_entropy",
)  # fmt: skip
"""Statistics of an example's layers that the lens kernels compute."""

LENS = "lens"
"""The dim of a probe's variables where a spec reads layers through several lenses."""

LENS_TITLE = "lens through which layers are read"

Lens = Literal["logit", "tuned", "jacobian"]

TRAINED_TEXTS, BUILT_IN_TEXT = "train", "builtin"
"""Texts on which a lens is fitted that are no file: a cell's training examples, and the package's own."""

DERIVED_STATISTICS = {
    "renyi_inf": ("nat", "min-entropy of the lens distribution"),
    "top_mass": ("1", "probability on the kept top tokens"),
    "top_entropy": ("nat", "entropy within the kept top tokens, renormalised"),
    "label_surprisal": ("nat", "surprisal of the true label's token"),
    "next_surprisal": ("nat", "surprisal of the text's next token"),
}
"""Of layers, from what the probe stores: units and meaning."""

GEOMETRY = {
    "matrix_entropy": ("nat", "matrix-based entropy of residual streams, order 1"),
    "matrix_entropy_2": ("nat", "matrix-based entropy of residual streams, order 2"),
    "effective_rank": ("1", "effective rank of residual streams"),
    "stable_rank": ("1", "stable rank of residual streams"),
    "participation_ratio": ("1", "participation ratio of the residual streams' covariance"),
    "anisotropy": ("1", "mean cosine between examples' residual streams"),
    "intrinsic_dimension": ("1", "intrinsic dimension of residual streams, by two nearest neighbours"),
    "curvature": ("rad", "angle between successive steps of the residual stream along a range"),
}
"""Of a layer's residual streams over examples, but curvature, over positions: units and meaning."""

SIMILARITIES = {
    "cka": ("1", "linear CKA of residual streams, unbiased, of both models"),
    "procrustes": ("1", "Procrustes distance between both models' residual streams"),
}
"""Of two models' residual streams, by layer: units and meaning."""

GRAM = "gram"
"""What `probe.geometry` calls the inner products of residual streams, from which similarities follow."""

STREAM = "stream_"
"""What the name of a statistic begins with where it is of streams within a block."""

BEFORE_ATTENTION, AFTER_ATTENTION = "before_attention", "after_attention"
"""The residual stream as a block gets it, and as it is once attention's output has been added."""

ATTRIBUTION, HEAD_ATTRIBUTION = "attribution", "head_attribution"
"""What each component, and each attention head, adds to the watched tokens' logits."""

DERIVED_ATTRIBUTIONS = {
    "label_attribution": ("nat", "added to the true label's logit, less the mean of the other labels'"),
    "label_head_attribution": (
        "nat",
        "added by a head to the true label's logit, less the mean of the other labels'",
    ),
}
"""By component or head, from what the probe stores: units and meaning."""

STEP = "_step"
"""What the name of a statistic ends with where it stands for the change from the layer below."""

_STEPPED = (
    "entropy", "renyi_2", "renyi_inf", "activation_entropy", "label_surprisal", "next_surprisal",
)  # fmt: skip
DERIVED_OUTCOMES = (*DERIVED_STATISTICS, *(name + STEP for name in _STEPPED))
"""Derived statistics that `[analysis]` can name."""

CORRECTED_OUTCOMES = (*EXAMPLE_OUTCOMES, "entropy")
"""Outcomes whose contrasts are made, and corrected, even if the spec does not name them."""

CorrectionFamily = Literal["contrast", "outcome", "spec"]
"""What p values are corrected over (`analysis.family`)."""

CORRECTION_FAMILIES: tuple[CorrectionFamily, ...] = get_args(CorrectionFamily)

ExportFormat = Literal["netcdf", "parquet", "csv"]
EXPORT_FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)

ACTIVATION_ENTROPY = "activation_entropy"
"""The statistic that `probe.activation` records."""
