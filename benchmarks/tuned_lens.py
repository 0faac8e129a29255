"""What does KL to the final layer, with its gradient, take beside the three products that it needs?

Random rows of several layers under a random unembedding, in float32 and in bfloat16. `eager` is whole logits
and autograd; the floor multiplies rows and final rows with W, one of these results with W again, and does
nothing else. "rounded" are slopes that may be rounded to bfloat16.
"""

from functools import partial
from itertools import product

import torch
from torch import Tensor

from benchmarks.measure import Action, interleaved, peak_extra_mib
from kernels import Unembedding, lens_divergence
from kernels.backends import OPERATIONS, why_not

SHAPES = {  # width, vocabulary, layers, positions
    "SmolLM2-135M": (576, 49_152, 6, 64),
    "Llama 2's head": (4096, 32_000, 6, 16),
}
ROUNDS = 9


def floor(hidden: Tensor, final: Tensor, weight: Tensor) -> None:
    """Do the three products, and nothing else."""
    final @ weight.T
    logits = hidden.flatten(0, 1) @ weight.T
    logits @ weight


def eager(hidden: Tensor, final: Tensor, weight: Tensor) -> None:
    """Whole logits and autograd."""
    rows = hidden.clone().requires_grad_()
    target = (final @ weight.T).log_softmax(-1).expand(len(rows), -1, -1)
    own = (rows @ weight.T).log_softmax(-1)
    torch.nn.functional.kl_div(own, target, reduction="sum", log_target=True).backward()


def actions(
    width: int, vocabulary: int, layers: int, positions: int, dtype: torch.dtype
) -> dict[str, Action]:
    """Give the floor first, then all that serves here, then eager."""
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(vocabulary, width, generator=generator) / width**0.5).to(dtype)
    hidden = 2 * torch.randn(layers, positions, width, generator=generator)
    operands = hidden.to(dtype), (2 * torch.randn(positions, width, generator=generator)).to(dtype)
    serving = [
        name
        for name in OPERATIONS["lens_divergence"]
        if name != "reference" and not why_not(name, weight.device, "lens_divergence")
    ]
    ours = {name: partial(lens_divergence, *operands, Unembedding(weight), backend=name) for name in serving}
    if dtype == torch.bfloat16:
        ours |= {f"{name}, rounded": partial(ours[name], rounded_slopes=True) for name in serving}
    return {
        "floor": partial(floor, *operands, weight),
        **ours,
        "eager": partial(eager, *operands, weight),
    }


def main() -> None:
    print(f"{torch.get_num_threads()} threads; medians of {ROUNDS} rounds in turn")
    for (model, shape), dtype in product(SHAPES.items(), (torch.float32, torch.bfloat16)):
        width, vocabulary, layers, positions = shape
        print(f"{model}: D = {width}, V = {vocabulary:,}, {layers} layers of {positions} positions, {dtype}")
        run = actions(*shape, dtype)
        memory = {name: peak_extra_mib(action) or 0.0 for name, action in run.items()}
        for name, found in interleaved(run, ROUNDS).items():
            spread = f"({found['ratio_low']:.2f}–{found['ratio_high']:.2f})"
            print(
                f"  {name:<16}{found['ratio']:>6.2f} × floor {spread}, processor {found['cpu_ratio']:.2f}, "
                f"{memory[name]:,.0f} MiB"
            )


if __name__ == "__main__":
    main()
