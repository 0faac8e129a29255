"""The probe core: statistics of lens rows without [rows, vocabulary] logits, and entropies beside them."""

from kernels.activation_entropies import activation_entropy
from kernels.attention_entropies import attention_entropy
from kernels.attention_row_entropies import attention_row_entropy
from kernels.backends import available_backends, choose_backend, cpu_paths, why_not
from kernels.collision_entropies import collision_entropy
from kernels.lens import lens_statistics
from kernels.lens_divergences import lens_divergence
from kernels.lens_result import LensStatistics
from kernels.logits import lens_logits
from kernels.unembedding import Unembedding
from specs.common.lazy_names import public_names

__all__ = [
    "LensStatistics",
    "Unembedding",
    "activation_entropy",
    "attention_entropy",
    "attention_row_entropy",
    "available_backends",
    "choose_backend",
    "collision_entropy",
    "cpu_paths",
    "lens_divergence",
    "lens_logits",
    "lens_statistics",
    "why_not",
]

__dir__ = public_names(__name__)
