"""The token positions of an example that a probe watches."""

from __future__ import annotations

from engine.text.targets import Encoded
from specs.tables.probe import Probe


def position_indices(probe: Probe, example: Encoded) -> list[int]:
    """Give the token index of every watch position in prompt + completion.

    An index n >= 0 counts from the completion's first token; beyond either end the nearest token serves.
    """
    border, last = len(example.prompt), len(example) - 1
    named = {"prompt_end": border - 1, "label": example.label - 1, "completion_end": last}
    wanted = [named[p] if isinstance(p, str) else border + p for p in probe.positions]
    return [min(max(index, 0), last) for index in wanted]
