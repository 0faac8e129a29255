"""What do labels and a probe cost where the prompts of a batch begin alike, beside reading each prompt whole?

    python -m benchmarks.shared_prefix [--layers N] [--batch N] [--head N] [--rest N] [--rounds N]

A model with the shapes of SmolLM2-135M and random weights; prompts of a common head and drawn tokens behind
it, within a tenth of so many; five labels of one token, then of two, then a probe's pass over all layers at
the prompt's end. Both ways take turns in one process.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from functools import partial
from unittest import mock

import torch
from transformers import LlamaForCausalLM

from benchmarks.measure import interleaved
from benchmarks.smollm2_config import smollm2_config
from engine.models import shared_prefix
from engine.models.lens import Lens, find_lens
from engine.models.scoring import Question, score_spellings
from engine.stages.watched_passes import watched_pass
from specs.tables.probe import Probe

LABELS = {
    "one token": [[[token]] for token in range(10, 15)],
    "two tokens": [[[20 + token, 10]] for token in range(5)],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--head", type=int, default=60)
    parser.add_argument("--rest", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = LlamaForCausalLM(smollm2_config(options.layers)).requires_grad_(False).eval()
    lens, rng = find_lens(model), random.Random(0)
    head = [rng.randrange(30, 49_000) for _ in range(options.head)]
    prompts = [head + drawn(rng, options.rest) for _ in range(options.batch)]
    work = {
        name: partial(scored, lens, [(prompt, labels) for prompt in prompts])
        for name, labels in LABELS.items()
    }
    work["probe"] = partial(watched, lens, prompts)
    print(f"{'':<14}{'whole, s':>10}{'CPU':>8}{'shared / whole':>24}{'CPU':>8}")
    for name, shared in work.items():
        found = interleaved({"whole": partial(whole, shared), "shared": shared}, options.rounds)
        ratio = "{ratio:.2f} ({ratio_low:.2f}–{ratio_high:.2f})".format(**found["shared"])
        base, cpu = found["whole"], found["shared"]["cpu_ratio"]
        print(f"{name:<14}{base['seconds']:>10.2f}{base['cpu']:>8.2f}{ratio:>24}{cpu:>8.2f}")


def drawn(rng: random.Random, tokens: int) -> list[int]:
    """Draw about so many tokens."""
    return [rng.randrange(30, 49_000) for _ in range(round(tokens * rng.uniform(0.9, 1.1)))]


@torch.inference_mode()
def scored(lens: Lens, questions: Sequence[Question]) -> None:
    """Score the labels as an evaluation does."""
    score_spellings(lens, questions, 0)


@torch.inference_mode()
def watched(lens: Lens, prompts: Sequence[Sequence[int]]) -> None:
    """Run a probe's pass: the residual streams of all layers at the prompt's end."""
    layers, ends = range(len(lens.layers) + 1), [[len(prompt) - 1] for prompt in prompts]
    watched_pass(lens, layers, Probe(), 0, prompts, ends)


def whole(work: Callable[[], None]) -> None:
    """Do it with every prompt read whole."""
    with mock.patch.object(shared_prefix, "pays", lambda *_: False):
        work()


if __name__ == "__main__":
    main()
