"""Trainings side by side, and what each of them has of the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from attrs import frozen
from torch import Tensor

from engine.models.causal_lm import CausalLm
from engine.stages.training.together.joint_model import structure_of
from engine.stages.training.together.joint_passes import Asked, JointPasses, Pass
from engine.stages.training.together.own_state import OwnState
from engine.stages.training.together.own_team import team_of
from engine.stages.training.together.turns import Turn, take_turns

_Turn = Turn[Asked, Tensor | None]


@frozen(eq=False)
class Beside:
    """The place of one training beside others on the same base model."""

    count: int
    """Trainings that began together."""
    _turn: _Turn
    _state: OwnState
    _threads: int

    def own(self, base: CausalLm) -> CausalLm:
        """Give the base model with modules of this training's own, on the weights that all share."""
        return structure_of(base)

    def passed(self, wanted: Pass) -> Tensor | None:
        """Let rows go through the model and back beside those of the others; give their loss, in nats.

        None where this training has to do that by itself.
        """
        return self._turn.ask(Asked(wanted, self._state))

    def whole_team(self) -> AbstractContextManager[object]:
        """Compute with all threads of the process inside the `with` block, as a training alone does."""
        return team_of(self._threads)

    def clock(self) -> float:
        """Give the seconds that this training has taken, with its share of those of common passes."""
        return self._turn.clock()


def side_by_side(base: CausalLm, trainings: Sequence[Callable[[Beside], None]]) -> None:
    """Run functions that each do a training on `base`, with their passes done together.

    What one raises ends the others, by Interrupted, and is raised; but for Interrupted, of a stop request,
    behind which the others stop by themselves.
    """
    passes, device = JointPasses(base, most=len(trainings)), next(base.parameters()).device
    threads = torch.get_num_threads()

    def turn_of(training: Callable[[Beside], None]) -> _Turn:
        state = OwnState(device)

        def run(turn: _Turn) -> None:
            with team_of(1):
                training(Beside(len(trainings), turn, state, threads))

        return Turn(run, state)

    turns = [turn_of(training) for training in trainings]
    take_turns(turns, lambda waiting: passes.losses([turn.asked for turn in waiting]))
