"""The probe core: statistics of lens rows without [rows, vocabulary] logits, and entropies beside them."""

from kernels.activation import activation_entropy
from kernels.api import lens_statistics
from kernels.attention import attention_entropy
from kernels.attention_rows import attention_row_entropy
from kernels.backends import available_backends, choose_backend, cpu_paths, why_not
from kernels.divergence import lens_divergence
from kernels.logits import lens_logits
from kernels.result import LensStatistics
from kernels.unembedding import Unembedding

__all__ = [
    "LensStatistics",
    "Unembedding",
    "activation_entropy",
    "attention_entropy",
    "attention_row_entropy",
    "available_backends",
    "choose_backend",
    "cpu_paths",
    "lens_divergence",
    "lens_logits",
    "lens_statistics",
    "why_not",
]
