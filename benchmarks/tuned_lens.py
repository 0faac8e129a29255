"""What does a step of a tuned lens's training hold in memory, and take, beside one through whole logits?

One layer's rows of SmolLM2-135M's unembedding, random; both give KL to the final layer and its gradient.
"""

import torch

from benchmarks.measure import interleaved, peak_extra_mib
from kernels import Unembedding, lens_divergence

WIDTH, VOCABULARY = 576, 49_152


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    head = Unembedding(torch.randn(VOCABULARY, WIDTH, generator=generator) / WIDTH**0.5)
    print(
        f"{'tokens':>7}{'tiled MiB':>11}{'whole MiB':>11}{'memory':>8}{'time':>7}   (ratios: whole / tiled)"
    )
    for tokens in (256, 1024, 2048):
        hidden, final = (torch.randn(tokens, WIDTH, generator=generator) for _ in range(2))

        def tiled(hidden: torch.Tensor = hidden, final: torch.Tensor = final) -> None:
            lens_divergence(hidden[None], final, head, backend="torch")

        def whole(hidden: torch.Tensor = hidden, final: torch.Tensor = final) -> None:
            rows = hidden.clone().requires_grad_()
            target = (final @ head.weight.T).log_softmax(-1)
            own = (rows @ head.weight.T).log_softmax(-1)
            torch.nn.functional.kl_div(own, target, reduction="sum", log_target=True).backward()

        memory = {
            name: peak_extra_mib(action) or 0.0 for name, action in (("tiled", tiled), ("whole", whole))
        }
        ratio = interleaved({"tiled": tiled, "whole": whole}, 3)["whole"]["ratio"]
        print(
            f"{tokens:>7}{memory['tiled']:>11.0f}{memory['whole']:>11.0f}"
            f"{memory['whole'] / memory['tiled']:>8.1f}{ratio:>7.2f}"
        )


if __name__ == "__main__":
    main()
