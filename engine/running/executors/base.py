"""What every executor takes and gives. Both are small: arrays travel through the store alone."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Protocol

from attrs import field, frozen

from engine.full_memory import SOLE, Sharing
from engine.planning.plan import PlannedCell
from engine.running.outcome import Options, Outcome
from specs import Spec
from store.backend.location import Place


@frozen
class Job:
    """What all units of one execution share; a worker makes the plan's tables from it."""

    spec: Spec
    root: Place
    options: Options
    lease: float
    ranks: int = 1  # processes that share a unit
    grace: float = 60.0  # seconds that they have to save and end
    sharing: Sharing = SOLE
    events: Place | None = None  # the folder to which workers write what they do


@frozen
class Resources:
    """What a unit of work needs."""

    memory: float | None = None  # bytes, at its peak; None: unknown


@frozen
class Work:
    """A unit: cells of one model, those of one training together. Running it twice does no harm."""

    cells: tuple[PlannedCell, ...]
    model: Hashable  # units that agree in it load the same model
    rank: int = 0  # its place among all units, which it keeps when it is given again
    together: bool = True  # whether its trainings may go side by side
    donated: frozenset[str] = field(default=frozenset(), eq=False)  # train keys that other cells take from
    # Owners of claims that the submitter found silent for a lease: token → last beat.
    silent: dict[str, str] = field(factory=dict, eq=False)


@frozen
class Finished:
    """How a unit ended."""

    work: Work
    outcome: Outcome | None
    error: str = ""  # why there is no outcome: the worker died, or could not begin
    memory: bool | None = False  # whether memory was full; None: killed, and nobody tells by whom
    here: bool = False  # whether that was on this machine


class UnitExecutor(Protocol):
    """Runs units of work, in any order, each at least once."""

    def submit(self, work: Work, resources: Resources) -> None:
        """Take a unit; also while `as_completed` is under way."""

    def as_completed(self) -> Iterator[Finished | None]:
        """Run what was submitted, and yield each unit as it ends. Raises Interrupted after a stop request.

        Yields None now and then while nothing ends, so that the caller can look after what it holds back.
        """

    def cancel(self) -> None:
        """Drop what is not finished and free all workers; harmless when there is nothing left.

        Once the person insists on a stop, workers get no time to save. No process is left over behind it.
        """
