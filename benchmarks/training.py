"""How long does a training take beside plain Trainer and peft, and how much of what it reads is padding?

    python -m benchmarks.training [--layers N] [--batch N] [--steps N] [--rounds N] [--mean N] [--precision P]
    python -m benchmarks.training --demo --compile [...]

A model with the shapes of SmolLM2-135M and random weights, LoRA on all linear modules, and drawn examples:
the logarithms of their lengths are normal, so that few are long; or the demo's dialogues, two at once as
there. Each run is a whole training, the set-up and the saved adapter included. The plain one pads as ours
does, has a mask, unembeds every position, and takes the mean of a batch's tokens. Trainings run in turn in
one process.

Then the share of real tokens in all that goes through the model, for these lengths and those of the demo's
dialogues, by the examples that go through it at once.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM, PrinterCallback, Trainer, TrainingArguments

from benchmarks.encoding import LABELS, smollm2
from benchmarks.measure import interleaved
from benchmarks.smollm2_config import smollm2_config
from engine.data.graded_dialogues import examples as dialogues
from engine.models.batching import padding_id
from engine.progress import StopRequest, silent
from engine.stages.training.arguments import global_seed
from engine.stages.training.loss import Collator
from engine.stages.training.micro_batches import parted
from engine.stages.training.orders import epoch_order
from engine.stages.training.train import train_adapter
from engine.text.targets import Encoded, TargetEncoder
from specs.tables.experiment import Lora, Train
from specs.tables.target import Prompt, Target
from store.backend.locate import place_of

TEMPLATE = "Message: {context}\nReply: {response}\nComprehensiveness, from 1 to 5:"  # the demo's
LORA = Lora(r=8, alpha=16)
TOKENIZER = smollm2()
PADDING = padding_id(TOKENIZER)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--demo", action="store_true", help="train on the demo's dialogues")
    targets = ("label", "label+explanation")
    parser.add_argument("--target", choices=targets, default=targets[1], help="of the demo's dialogues")
    parser.add_argument("--batch", type=int, help="examples of a step; by default 8, with --demo 2")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mean", type=int, default=60, help="tokens of a drawn example")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--compile", action="store_true", help="also with train.compile")
    options = parser.parse_args()
    options.batch = options.batch or (2 if options.demo else 8)
    drawn = long_tailed(400, options.mean)
    writer = TargetEncoder(
        tokenizer=TOKENIZER,
        prompt=Prompt(template=TEMPLATE, chat_template=False),
        target=Target(content=options.target),
        labels=LABELS,
        dimension="comprehensiveness",
        seed=0,
    )
    demo = [writer.encode(row) for row in dialogues("comprehensiveness")]
    if options.rounds:
        report_times(options, demo if options.demo else drawn)
    print(f"\nreal tokens in all that are read, batches of {options.batch}, examples at once:")
    for name, rows in (("drawn", drawn), ("demo", demo)):
        report_padding(name, rows, options.batch)


def long_tailed(count: int, mean: int) -> list[Encoded]:
    """Draw examples with lengths that are log-normal (standard deviation 0.8), with short completions."""
    rng = random.Random(0)
    found = []
    for _ in range(count):
        size = max(4, min(16 * mean, round(mean * rng.lognormvariate(-0.32, 0.8))))
        completion = max(2, size // 8)
        tokens = [rng.randrange(10, 49_000) for _ in range(size)]
        found.append(Encoded(tokens[:-completion], tokens[-completion:], size - completion))
    return found


def report_times(options: argparse.Namespace, rows: Sequence[Encoded]) -> None:
    """Print the times of trainings, and their ratios to the plain one."""
    config = smollm2_config(options.layers)
    torch.manual_seed(0)
    base = LlamaForCausalLM(config).requires_grad_(False).eval()
    sizes = sorted({options.batch, -(-options.batch // 2), -(-options.batch // 4), 1}, reverse=True)
    runs = {"plain Trainer and peft": partial(plain, base, rows, options)} | {
        f"{size} at once": partial(ours, base, rows, options, size) for size in sizes
    }
    if options.compile:
        name = f"{sizes[0]} at once, compiled"
        runs[name] = partial(ours, base, rows, options, sizes[0], compiled=True)
        started = time.perf_counter()
        runs[name]()
        print(f"the first compiled training took {time.perf_counter() - started:.0f} s")
    print(f"{'':<24}{'seconds':>9}{'plain / it':>12}{'quartiles':>14}{'by CPU time':>13}")
    for name, run in interleaved(runs, options.rounds).items():
        quartiles = f"{1 / run['ratio_high']:.2f}–{1 / run['ratio_low']:.2f}"
        print(
            f"{name:<24}{run['seconds']:>9.2f}{1 / run['ratio']:>12.2f}{quartiles:>14}"
            f"{1 / run['cpu_ratio']:>13.2f}"
        )


def ours(
    base: Any, rows: Sequence[Encoded], options: argparse.Namespace, size: int, *, compiled: bool = False
) -> None:
    """Train as a study does, so many examples at once."""
    settings = Train(
        steps=options.steps,
        batch_size=options.batch,
        precision=options.precision,
        micro_batch=size,
        compile=compiled,
    )
    with tempfile.TemporaryDirectory() as folder:
        train_adapter(
            base,
            TOKENIZER,
            rows,
            [],
            lora=LORA,
            settings=settings,
            seed=0,
            home=place_of(Path(folder)),
            report=silent,
            stop=StopRequest(),
        )


def plain(base: Any, rows: Sequence[Encoded], options: argparse.Namespace) -> None:
    """Train by the Trainer as it is, in the same order of the same examples."""
    adapter = LoraConfig(
        r=LORA.r, lora_alpha=int(LORA.alpha), target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = get_peft_model(base, adapter)
    ordered = [rows[place] for place in epoch_order(len(rows), 0, 0)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=options.steps,
            per_device_train_batch_size=options.batch,
            learning_rate=2e-4,
            bf16=options.precision == "bfloat16",
            use_cpu=not torch.cuda.is_available(),
            seed=global_seed(0),
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            train_sampling_strategy="sequential",
        )
        trainer = Trainer(model, arguments, _collated, train_dataset=ordered)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        model.save_pretrained(folder)
    model.unload()


def _collated(examples: Sequence[Encoded]) -> dict[str, torch.Tensor]:
    """Give the batch with what a model takes alone."""
    batch = Collator(PADDING)(examples)
    return {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}


def report_padding(name: str, rows: Sequence[Encoded], batch: int) -> None:
    """Print the share of real tokens, by the number of examples at once."""
    order = epoch_order(len(rows), 0, 0)
    batches = [
        Collator(0)([rows[place] for place in order[start : start + batch]])
        for start in range(0, len(order), batch)
    ]
    real = sum(map(len, rows))
    shares = []
    for size in sorted({batch, -(-batch // 2), -(-batch // 4), 1}, reverse=True):
        read = sum(part["input_ids"].numel() for whole in batches for part in parted(whole, size))
        shares.append(f"{size}: {real / read:.2f}")
    longest = max(map(len, rows))
    print(f"{name:<8}{len(rows)} examples of {real / len(rows):.0f} tokens (longest {longest}) ", *shares)


if __name__ == "__main__":
    main()
