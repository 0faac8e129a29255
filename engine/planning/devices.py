"""Common GPUs: what they compute at most, and their memory.

Source: the vendors' data sheets and architecture white papers, for dense products (no sparsity) that are
summed in float32. A GPU without bfloat16 units computes such products as it does float32 ones.
"""

from __future__ import annotations

from attrs import frozen

UTILISATION = 0.35  # of the peak: what LoRA training at batches of 8 commonly reaches
BANDWIDTH_UTILISATION = 0.5  # while one token after another is generated


@frozen
class Device:
    """A GPU: 10^12 operations per second by type, 10^9 bytes of memory, 10^12 bytes read per second."""

    bfloat16: float
    float16: float
    float32: float
    memory: float
    bandwidth: float

    def seconds(
        self,
        flops: float,
        streamed: float,
        dtype: str,
        *,
        products: float = UTILISATION,
        reads: float = BANDWIDTH_UTILISATION,
    ) -> float:
        """Give the time of products of a type, and of weights that are read anew for each token.

        products, reads: the shares of the rates that are reached.
        """
        peak: float = getattr(self, dtype)
        return flops / (peak * 1e12 * products) + streamed / (self.bandwidth * 1e12 * reads)


DEVICES = {
    "h200": Device(989, 989, 67, 141, 4.8),
    "h100": Device(989, 989, 67, 80, 3.35),
    "h100-pcie": Device(756, 756, 51, 80, 2.0),
    "a100": Device(312, 312, 19.5, 80, 2.04),
    "a100-40gb": Device(312, 312, 19.5, 40, 1.56),
    "l40s": Device(362, 362, 91.6, 48, 0.864),
    "l4": Device(121, 121, 30.3, 24, 0.3),
    "a10": Device(125, 125, 31.2, 24, 0.6),
    "rtx-a6000": Device(155, 155, 38.7, 48, 0.768),
    "rtx-5090": Device(209.5, 209.5, 104.8, 32, 1.79),
    "rtx-4090": Device(165, 165, 82.6, 24, 1.01),
    "rtx-3090": Device(71, 71, 35.6, 24, 0.936),
    "v100": Device(15.7, 125, 15.7, 32, 0.9),
    "t4": Device(8.1, 65, 8.1, 16, 0.32),
    "mi300x": Device(1307, 1307, 163, 192, 5.3),
}
