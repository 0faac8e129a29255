"""What does probing every layer at 8 of 128 positions add to an evaluation pass of SmolLM2-135M?

The model has the real shapes and random weights, which take the same time.
"""

import torch
from transformers import LlamaForCausalLM

from benchmarks.measure import interleaved
from benchmarks.shapes import TOP, WATCHED
from benchmarks.smollm2_config import smollm2_config
from kernels import Unembedding, lens_statistics

BATCH, LENGTH, POSITIONS = 4, 128, 8


def main() -> None:
    print(f"{'':<10}{'pass (ms)':>11}{'probe (ms)':>12}{'probe / pass':>14}{'CPU ratio':>11}")
    for dtype in (torch.float32, torch.bfloat16):
        config = smollm2_config()
        model = LlamaForCausalLM(config).to(dtype).eval()
        tokens = torch.randint(0, 49_152, (BATCH, LENGTH))
        head = Unembedding(model.lm_head.weight)
        layers = config.num_hidden_layers
        hidden = torch.randn(layers * BATCH * POSITIONS, 576).to(dtype)
        final = torch.arange(BATCH * POSITIONS).repeat(layers) + (layers - 1) * BATCH * POSITIONS
        watched = list(range(WATCHED))

        def evaluate(model: LlamaForCausalLM = model, tokens: torch.Tensor = tokens) -> None:
            with torch.no_grad():
                model(tokens, output_hidden_states=True)

        def probe(
            hidden: torch.Tensor = hidden,
            head: Unembedding = head,
            final: torch.Tensor = final,
            watched: list[int] = watched,
        ) -> None:
            lens_statistics(hidden, head, watch_ids=watched, top_k=TOP, final_rows=final)

        runs = interleaved({"pass": evaluate, "probe": probe}, 7)
        print(
            f"{str(dtype).removeprefix('torch.'):<10}{runs['pass']['seconds'] * 1e3:>11.0f}"
            f"{runs['probe']['seconds'] * 1e3:>12.0f}{runs['probe']['ratio']:>14.2f}"
            f"{runs['probe']['cpu_ratio']:>11.2f}"
        )


if __name__ == "__main__":
    main()
