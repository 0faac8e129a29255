"""Which examples are too long: for the spec, or for the positions that the model has."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from attrs import frozen

from engine.errors import DataError
from engine.models.causal_lm import CausalLm
from engine.models.scoring import Question
from engine.text.positions import WatchedText
from engine.text.targets import Example, TargetEncoder
from specs.tables.evaluate import Evaluate
from specs.tables.probe import Probe

LISTED = 5  # examples that an error names
# Where configurations have it; transformers gives most of them by the first name.
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "seq_length")


@frozen
class Limit:
    """The most tokens that a sequence may have, and what says so."""

    tokens: int
    reason: str


def limit_of(model: CausalLm, max_length: int) -> Limit:
    """Give the lesser of `train.max_length` and the positions that the model was made for."""
    return limit_by(model.config, max_length)


def limit_by(config: Any, max_length: int) -> Limit:
    """Give the lesser of `train.max_length` and the positions of a model with this configuration."""
    positions = position_limit(config)
    if positions is not None and positions < max_length:
        return Limit(positions, f"this model has {positions:,} positions")
    return Limit(max_length, f"train.max_length is {max_length:,}")


def position_limit(config: Any) -> int | None:
    """Give the positions that a model's text part was made for; None where it names none.

    With learned positions there are no more; with rotary ones it was trained on no more. A sliding window is
    no limit.
    """
    text = config.get_text_config()
    limits = (getattr(text, name, None) for name in _POSITIONS)
    return next((number for number in limits if isinstance(number, int) and number > 0), None)


def evaluated_length(writer: TargetEncoder, example: Example, settings: Evaluate) -> int:
    """Give the tokens of the longest sequence of an evaluation: the prompt with what is scored or written."""
    sampling, length = settings.sampling, settings.new_tokens(writer.target)
    written = length if settings.generates(writer.target) or sampling.samples else 0
    longest = len(writer.encode_prompt(example)[0]) + written if written else 0
    completes = settings.completes or (sampling.samples and sampling.constrained)
    behind = length if completes and writer.form.may_go_on else 0
    if not settings.scores and not completes:
        return longest
    if writer.target.explains_first:  # labels are scored behind the explanation that the model has written
        return max(longest, written + _scored(writer, example, "") + behind)
    return max(longest, _scored(writer, example) + behind)


def intervened_length(writer: TargetEncoder, example: Example) -> int:
    """Give the tokens of the longest sequence of an intervention: the prompt and a label's spelling."""
    return _scored(writer, example)


def probed_length(writer: TargetEncoder, example: Example, probe: Probe) -> int:
    """Give the tokens up to the last watch position."""
    return len(WatchedText.of(writer, example, probe).ids)


def longest(question: Question) -> int:
    """Give the tokens of a prompt and the longest spelling behind it."""
    prompt, labels = question
    return len(prompt) + max(len(ids) for spellings in labels for ids in spellings)


def question_behind(writer: TargetEncoder, example: Example, written: str, positions: int | None) -> Question:
    """Give the prompt and the spellings behind an explanation that the model has written.

    Its text can have more tokens than were written, as half characters have: the last words that the
    positions do not hold are left off.
    """
    words = written.split()
    while longest(question := writer.encode_spellings(example, " ".join(words))) > (positions or math.inf):
        if not words:
            break
        words.pop()
    return question


def fitting(
    examples: Sequence[Example],
    length: Callable[[Example], int],
    limit: Limit,
    too_long: Literal["error", "drop"],
) -> list[Example]:
    """Give the examples within the limit. DataError names the others, unless they are to be left out.

    It is an error, too, where no example is left.
    """
    lengths = [length(example) for example in examples]
    kept = [example for example, tokens in zip(examples, lengths, strict=True) if tokens <= limit.tokens]
    if len(kept) < len(examples) and (too_long == "error" or not kept):
        named = [
            (e["id"], tokens) for e, tokens in zip(examples, lengths, strict=True) if tokens > limit.tokens
        ]
        raise DataError(_too_long(named, len(examples), limit))
    return kept


def _too_long(named: Sequence[tuple[str, int]], total: int, limit: Limit) -> str:
    listed = ", ".join(f"{name}: {tokens:,}" for name, tokens in named[:LISTED])
    more = ", …" if len(named) > LISTED else ""
    count = f"{len(named):,} of {total:,} test examples have more than {limit.tokens:,} tokens"
    return (
        f"evaluate.too_long: {count} with what is scored or written behind the prompt ({listed}{more}), and "
        f"{limit.reason}; expected shorter ones (data.max_characters leaves long rows out under every "
        'condition alike), or evaluate.too_long = "drop"'
    )


def _scored(writer: TargetEncoder, example: Example, explanation: str | None = None) -> int:
    return longest(writer.encode_spellings(example, explanation))
