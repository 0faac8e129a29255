"""Errors that a person can cause, each with the exit code that it ends the program with."""

from __future__ import annotations

import errno


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


class DamagedDataError(EngineError):
    """Prepared examples are not those that were prepared."""


class ChangedWeightsError(EngineError):
    """The weights of a loaded base model are no longer those that were loaded."""


class DamagedLensError(EngineError):
    """A fitted lens cannot be read, or is not the one that was saved."""


class Interrupted(Exception):  # noqa: N818 - not an error: the person asked for it
    """The person pressed Ctrl-C; everything up to the batch in flight is safe on disk."""

    exit_code = 130


_ADVICE = {
    errno.ENOSPC: "free some space, and run the same command again: what is finished is kept",
    errno.EDQUOT: "free some of your quota, and run the same command again: what is finished is kept",
    errno.EFBIG: "the limit of a file's size is reached; raise it by `ulimit -f`",
    errno.EROFS: "expected a place that can be written to; commands that only read take -o for another one",
    errno.EACCES: "expected a file or folder that you may read and write",
    errno.EPERM: "expected a file or folder that you may read and write",
    errno.EISDIR: "expected a file",
    errno.ENOTDIR: "expected a folder",
    errno.EAGAIN: "the system's limit of processes and threads is reached; use fewer workers",
    errno.EMFILE: "the limit of open files is reached; raise it by `ulimit -n`",
}


def told(error: OSError) -> str:
    """Give an error of the operating system as a sentence: where, what, and what to do."""
    where = ": ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    what = error.strerror or str(error) or type(error).__name__
    advice = _ADVICE.get(error.errno or 0, "")
    return ": ".join(filter(None, [where, what])) + (f"; {advice}" if advice else "")
