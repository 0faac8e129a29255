"""The probe core: full-vocabulary statistics of lens rows, without [rows, vocabulary] logits."""

from kernels.api import lens_statistics
from kernels.backends import available_backends, choose_backend, cpu_paths
from kernels.result import LensStatistics
from kernels.unembedding import Unembedding

__all__ = [
    "LensStatistics",
    "Unembedding",
    "available_backends",
    "choose_backend",
    "cpu_paths",
    "lens_statistics",
]
