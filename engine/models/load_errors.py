"""What transformers says when it cannot load a model as it is asked to, as errors of the spec's keys."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from engine.errors import EngineError, UsageError
from specs.tables.experiment import Model

# What errors of transformers about the attention implementation have in common.
ATTENTION = re.compile(
    r"attn_implementation|attention implementation|flash[ _]?att|flash_attn|`sdpa` attention", re.I
)
SHOWN = 5  # names of weights in a message


@contextmanager
def loading_errors(model: Model) -> Iterator[None]:
    """Turn what is raised inside the `with` block into one sentence about the key that it comes from."""
    import torch

    try:
        yield
    except (EngineError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise loading_error(model, error) from error


def loading_error(model: Model, error: Exception) -> EngineError:
    """Give the error of a model that cannot be loaded."""
    message = str(error)
    if ATTENTION.search(message):
        return UsageError(
            f'model.attention: found "{model.attention}", which "{model.id}" cannot use here '
            f'({_sentence(message)}); expected "eager"'
            + (' or "sdpa"' if model.attention == "flash_attention_2" else "")
        )
    if "Unrecognized configuration class" in message:
        kind = re.search(r"\.(\w+)Config'", message)
        return EngineError(
            f'model.id: "{model.id}" is a model of type {kind[1] if kind else "unknown"}, which transformers '
            "does not load as a causal language model; expected one that continues a text"
        )
    if "trust_remote_code" in message:
        return UsageError(
            f'model.trust_remote_code: found false, but "{model.id}" runs Python code of its own repository; '
            "expected true, if you vouch for it"
        )
    return EngineError(f'model.id: cannot load "{model.id}": {_sentence(message) or type(error).__name__}')


def _sentence(text: str) -> str:
    """Give the first sentence of a message, in one line, without its full stop."""
    line = " ".join(text.split())
    first = re.match(r"(.+?)(?:[.!] (?=[A-Z])|$)", line)
    return (first[1] if first else line).rstrip(".")


def check_weights(model: Model, loading_info: Mapping[str, Any]) -> None:
    """Raise EngineError where weights are missing or of another shape; warn of those that are not used.

    `loading_info`: what `from_pretrained` gives with `output_loading_info`. It counts no head that is tied
    to the embedding, and nothing that is no weight of a checkpoint, as missing.
    """
    missing = sorted(loading_info["missing_keys"])
    if missing:
        raise EngineError(
            f'model.id: "{model.id}" lacks {len(missing)} of its weights, which would be random: '
            f"{_names(missing)}; expected a whole checkpoint"
        )
    if mismatched := sorted(loading_info["mismatched_keys"]):
        name, stored, expected = mismatched[0]
        raise EngineError(
            f'model.id: "{model.id}" has {len(mismatched)} weights of another shape than its configuration '
            f"says: {_names([key for key, *_ in mismatched])}; {name} is {list(stored)}, expected "
            f"{list(expected)}"
        )
    if unexpected := sorted(loading_info["unexpected_keys"]):
        warnings.warn(
            f'model.id: "{model.id}" has {len(unexpected)} weights that the model has no place for and that '
            f"are not used: {_names(unexpected)}",
            stacklevel=2,
        )


def _names(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
