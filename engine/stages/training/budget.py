"""Trainings whose length is a number of tokens: how many steps that takes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from attrs import evolve

from engine.stages.training.orders import epoch_places, variants_of
from engine.text.targets import Encoded
from specs.tables.experiment import Train


def within_budget(settings: Train, examples: Sequence[Encoded], seed: int) -> Train:
    """Give the settings with the steps that take in as many tokens as they ask for, the last one whole."""
    budget = settings.tokens or settings.label_tokens
    if budget is None:
        return settings
    taken = [len(example) if settings.tokens else example.label_size for example in examples]
    variants = variants_of(examples)
    per_step, steps = settings.batch_size * settings.accumulation, 0
    for epoch in count():
        order = epoch_places(variants, seed, epoch)
        for start in range(0, len(order), per_step):  # no step reaches over an epoch
            budget -= sum(taken[place] for place in order[start : start + per_step])
            steps += 1
            if budget <= 0:
                return evolve(settings, steps=steps, tokens=None, label_tokens=None)
    raise AssertionError
