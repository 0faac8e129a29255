"""The probe core: full-vocabulary statistics of lens rows, without [rows, vocabulary] logits."""

from kernels.api import lens_statistics
from kernels.result import LensStatistics

__all__ = ["LensStatistics", "lens_statistics"]
