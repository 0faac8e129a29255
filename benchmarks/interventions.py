"""A sweep of interventions against running each changed model alone: `python -m benchmarks.interventions`.

A random-weight Llama of 30 layers with a LoRA adapter; windows of 1, 2, 4 and 8 layers, masked. Alone, every
change is one whole forward pass, its labels scored and its layers probed; in the sweep the layers that it has
in common with an earlier one are not run again. With `--grid`: patches of 8 positions by layer, as rows of
one batch against one change in a batch. Ratios of processor time and of the clock, both measured in one run,
alternating.
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import Any
from unittest import mock

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from engine.models.batching import padding_id
from engine.planning.changes import SAME, Change, Entry, ModelShape
from engine.planning.run_order import steps_of
from engine.planning.sweeps import expand
from engine.progress import StopRequest, silent
from engine.stages.adapter_layout import arrangement
from engine.stages.interventions import intervene
from engine.stages.interventions.intervene import InterventionRun
from engine.stages.interventions.layer_parts import LayerParts
from engine.stages.interventions.places import Asked
from engine.stages.interventions.residual import record
from engine.stages.interventions.sequences import chunks
from engine.stages.training.adapter import attach_adapter
from engine.text.targets import TargetEncoder
from kernels import lens_statistics
from specs.tables.evaluate import Evaluate
from specs.tables.experiment import Lora
from specs.tables.interventions import Intervention
from specs.tables.probe import Probe
from specs.tables.target import Prompt, Target

LAYERS = 30
LABELS = ["1", "2", "3", "4", "5"]
CONTEXT, RESPONSE = "the model rates", "a reply on topic " * 12


def make_tokenizer() -> Any:
    """One token per word of the examples."""
    words = dict.fromkeys(["<end>", *CONTEXT.split(), *RESPONSE.split(), ":", *LABELS])
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def experiment(width: int) -> tuple[Any, Any, Any]:
    """A model with an adapter, its tokenizer, and the writer of its examples."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=8192, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=LAYERS,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
    )  # fmt: skip
    model = attach_adapter(LlamaForCausalLM(config).eval(), Lora(r=8)).eval()
    prompt = Prompt(template="{context} {response}:", chat_template=False)
    writer = TargetEncoder(
        tokenizer=tokenizer, prompt=prompt, target=Target(), labels=LABELS, dimension="", seed=0
    )
    return model, tokenizer, writer


def alone(own: InterventionRun, rows: list[dict[str, str]], changes: list[Change]) -> None:
    """Every change by a whole pass of its own."""
    lens, size = own.lens, own.probe.batch_size
    for change in changes:
        steps = steps_of(change, own.arrangement.trained, LAYERS)
        for first in range(0, len(rows), size):
            asked = {SAME: [Asked.of(own.writer, row) for row in rows[first : first + size]]}
            for chunk in chunks(asked, padding_id(own.tokenizer), lens):
                with torch.inference_mode(), own.arrangement.changed(steps):
                    ran = record(lens, chunk.batch, LayerParts({}, {}))
                    states = torch.stack([chunk.batch.at(state) for state in ran.states])
                    normed = lens.norm(states[:, chunk.leading, 0])
                    flat = normed.flatten(0, 1)
                    lens_statistics(flat, lens.unembedding, top_k=0, backend=own.probe.backend)
                    torch.log_softmax(lens.logits(normed[-1]), dim=-1)


def one_by_one(own: InterventionRun, rows: list[dict[str, str]], changes: list[Change]) -> None:
    """The sweep, but every change in a batch of its own."""
    with mock.patch.object(intervene, "PACKED_TOKENS", 1):
        list(own.run(rows, changes, silent, StopRequest()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=256, help="D of the model")
    parser.add_argument("--examples", type=int, default=16)
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--grid", action="store_true", help="rows of one batch against one change in each")
    options = parser.parse_args()
    rows = [
        {"id": str(i), "context": CONTEXT, "response": RESPONSE, "label": "1"}
        for i in range(options.examples)
    ]
    settings = Intervention(name="off", kind="mask", width=[1, 2, 4, 8], stride=options.stride)
    if options.grid:
        positions = list(range(-8, 0))
        settings = Intervention(
            name="grid", kind="patch", positions=positions, grid=True, stride=options.stride
        )
    changes = expand([Entry(settings, "", "base")], ModelShape(LAYERS, 4))
    ratios = []
    model, tokenizer, writer = experiment(options.width)
    with arrangement(model, {}) as arranged:
        probe = Probe(batch_size=options.batch)
        own = InterventionRun(arranged, tokenizer, writer, Evaluate(labels=LABELS), probe)
        for _ in range(options.rounds):
            spent = []
            for run in (
                lambda: list(own.run(rows, changes, silent, StopRequest())),
                (lambda: one_by_one(own, rows, changes))
                if options.grid
                else (lambda: alone(own, rows, changes[2:])),
            ):
                clock, processor = time.perf_counter(), time.process_time()
                run()
                spent.append((time.perf_counter() - clock, time.process_time() - processor))
            ratios.append(tuple(a / b for a, b in zip(*spent, strict=True)))
    wall, processor = (median(values) for values in zip(*ratios, strict=True))
    print(
        f"{len(changes) - 2} changes: sweep / alone = {wall:.2f} by the clock, {processor:.2f} of processor"
    )


if __name__ == "__main__":
    main()
