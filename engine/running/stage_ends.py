"""How a stage of a cell ends otherwise than by its result, for the cells that wait for that."""

from __future__ import annotations


class UnavailableError(Exception):
    """A stage has failed, now or before, so what consumes its result cannot run."""


class ChangedBaseError(UnavailableError):
    """A stage has just failed because the base model's weights changed: the others need another model."""


class HeldError(Exception):
    """Another process is running a stage, so what consumes its result has to wait."""


class FailFastError(Exception):
    """A stage has failed, and the person wants to stop at the first failure."""
