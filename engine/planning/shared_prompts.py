"""Which prompts an evaluation and a probe both read, and what a batch need not read of each prompt."""

from __future__ import annotations

from engine.models.prefix_rule import pays
from engine.planning.example_lengths import Lengths
from engine.planning.sizes import ModelCard
from specs.tables.evaluate import Evaluate
from specs.tables.probe import Probe
from specs.tables.target import Target

_PROMPT_END = ("prompt_end", "label", -1)  # one position, where nothing stands before the label


def ends_with_prompt(probe: Probe) -> bool:
    """Tell whether a probe reads an example up to its prompt's end, where the label follows the prompt."""
    inside = all(position in _PROMPT_END or str(position).startswith("-") for position in probe.positions)
    return inside and any(position in _PROMPT_END for position in probe.positions)


def reads_alike(probe: Probe, evaluate: Evaluate, target: Target) -> bool:
    """Tell whether a probe's passes over examples are those of an evaluation over their bare prompts."""
    same = probe.enabled and probe.batch_size == evaluate.batch_size
    return same and not target.explains_first and ends_with_prompt(probe)


def spared_tokens(model: ModelCard, lengths: Lengths, batch: int, behind: float = 0.0) -> float:
    """Estimate the tokens of a prompt that are read with those of the others of its batch, not by itself.

    behind: so many tokens are read behind the prompt.
    """
    if not model.facts.keeps_all or not pays(lengths.head, lengths.prompt + behind):
        return 0.0
    return lengths.head * (1 - 1 / batch)


def spared_by_probe(model: ModelCard, lengths: Lengths, probe: Probe) -> float:
    """Estimate the same of a probe's pass, which reads nothing before the first token that it watches."""
    if probe.watches_range("prompt"):
        return 0.0
    return spared_tokens(model, lengths, probe.batch_size, lengths.completion)
