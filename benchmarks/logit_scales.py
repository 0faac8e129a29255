"""Does the probe core take longer where logits spread, and most probabilities are too small for float32?

Drawn rows of SmolLM2-135M's shape, in float32, whose logits have standard deviations of 1, 8 and 24; each
beside the bare product. At 24 a quarter of a row's probabilities would be denormal numbers.
"""

from functools import partial

import torch

from benchmarks.measure import interleaved
from kernels import Unembedding, lens_statistics

WIDTH, VOCABULARY, ROWS, ROUNDS = 576, 49_152, 96, 9


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator) / WIDTH**0.5
    rows, head = torch.randn(ROWS, WIDTH, generator=generator), Unembedding(weight)
    asked = {"watch_ids": [1, 5], "top_k": 5}
    print(f"{torch.get_num_threads()} threads, {ROWS} rows; time / bare product, medians of {ROUNDS} rounds")
    for deviation in (1, 8, 24):
        scaled = rows * deviation
        found = interleaved(
            {
                "product": partial(torch.nn.functional.linear, scaled, weight),
                "sums": partial(lens_statistics, scaled, head, **asked),
                "KL and JS": partial(lens_statistics, scaled, head, **asked, final_rows=[ROWS - 1] * ROWS),
            },
            ROUNDS,
        )
        cells = (f"{name} {found[name]['ratio']:.2f}" for name in ("sums", "KL and JS"))
        print(f"  deviation {deviation}: {', '.join(cells)}")


if __name__ == "__main__":
    main()
