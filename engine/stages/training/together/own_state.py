"""What libraries keep once per process, and each of several trainings needs for itself.

Python's and NumPy's own generators are none of it: a training draws nothing from them.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from attrs import define, field, frozen

from engine.stages.training.micro_batches import Draws
from engine.stages.training.trackers import VARIABLES

_SHARED = (AcceleratorState, GradientState, PartialState)  # what the parts of a Trainer read of accelerate


@frozen
class _Process:
    """What is in place now."""

    draws: Draws
    variables: dict[str, str]
    shared: list[dict[str, Any]]

    @classmethod
    def now(cls, device: torch.device) -> _Process:
        variables = {name: os.environ[name] for name in VARIABLES if name in os.environ}
        return cls(Draws.now(device), variables, [dict(owner._shared_state) for owner in _SHARED])

    def restore(self, device: torch.device) -> None:
        self.draws.restore(device)
        for name in VARIABLES:
            _set(os.environ, name, self.variables)
        for owner, content in zip(_SHARED, self.shared, strict=True):
            for name in owner._shared_state.keys() | content.keys():
                _set(owner._shared_state, name, content)


def _set(mapping: MutableMapping[str, Any], name: str, content: dict[str, Any]) -> None:
    """Set one name as it is in `content`, or nowhere."""
    if name in content:
        mapping[name] = content[name]
    else:
        mapping.pop(name, None)


@define(eq=False)
class OwnState:
    """The generators of torch, accelerate's state and the trackers' variables, as a training has left them.

    A new one begins with what is in place when it is entered first.
    """

    device: torch.device
    _kept: _Process | None = field(default=None, init=False)
    _before: list[_Process] = field(factory=list, init=False)

    @property
    def draws(self) -> Draws:
        """Give the states that dropout goes on from, between two turns."""
        assert self._kept is not None
        return self._kept.draws

    def drawn(self, draws: Draws) -> None:
        """Note, between two turns, that numbers were drawn for this training."""
        assert self._kept is not None
        self._kept = _Process(draws, self._kept.variables, self._kept.shared)

    def enter(self) -> None:
        """Put this training's state in place."""
        self._before.append(_Process.now(self.device))
        if self._kept is not None:
            self._kept.restore(self.device)

    def leave(self) -> None:
        """Note it, and put back what was in place before."""
        self._kept = _Process.now(self.device)
        self._before.pop().restore(self.device)
