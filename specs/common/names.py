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

LENS_STATISTICS = (
    "logsumexp", "entropy", "max_prob", "kl_final", "js_final", "watch_mass", "watch_entropy",
)  # fmt: skip
"""Statistics of an example's layers that the lens kernels compute."""

CORRECTED_OUTCOMES = (*EXAMPLE_OUTCOMES, "entropy")
"""Outcomes whose contrasts are made, and corrected, even if the spec does not name them."""

CorrectionFamily = Literal["contrast", "outcome", "spec"]
"""What p values are corrected over (`analysis.family`)."""

CORRECTION_FAMILIES: tuple[CorrectionFamily, ...] = get_args(CorrectionFamily)

ExportFormat = Literal["netcdf", "parquet", "csv"]
EXPORT_FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)

ACTIVATION_ENTROPY = "activation_entropy"
"""The statistic that `probe.activation` records."""
