"""Errors that a person can cause, each with the exit code that it ends the program with."""

from __future__ import annotations


class EngineError(Exception):
    """A mistake outside the spec's text: a missing file, a model that cannot run here, bad data."""

    exit_code = 1


class UsageError(EngineError):
    """The command line or the spec asks for something that cannot be."""

    exit_code = 2


class DataError(EngineError):
    """The data set does not hold what the spec says it holds."""

    exit_code = 2


class HeldElsewhereError(EngineError):
    """Another live process is running this very stage; its result will be there when it is done."""


class DoneElsewhereError(EngineError):
    """Another process has finished this very stage since the plan was made."""


class LostRankError(EngineError):
    """One of the processes that share a unit of work has died, or failed where the others did not."""


class DamagedAdapterError(EngineError):
    """A saved adapter cannot be read."""


class ChangedWeightsError(EngineError):
    """The weights of a loaded base model are no longer those that were loaded."""


class DamagedLensError(EngineError):
    """A tuned lens's saved translators cannot be read, or are not those that were saved."""


class Interrupted(Exception):  # noqa: N818 - not an error: the person asked for it
    """The person pressed Ctrl-C; everything up to the batch in flight is safe on disk."""

    exit_code = 130
