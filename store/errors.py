"""The store's error classes, and what their messages end in."""

MEND = "`engine verify STORE --fix`, then `engine execute`, makes it again"


class StoreError(Exception):
    """A store cannot be read or written as asked; the message names the file or the entry at fault."""


class UnknownExperimentError(StoreError):
    """A store has no experiment of the name that was asked for."""

    exit_code = 2


class LostClaimError(StoreError):
    """Another process has taken a stage over, or finished it first; nothing of it may be written any more."""


class UnreachableError(StoreError):
    """An object store does not answer, or refuses; nothing is known to be wrong with what it holds."""


class DamagedError(StoreError):
    """A file of the store is missing, or not as it was written; the message ends with what mends it."""


FAULTS = (DamagedError, UnreachableError)
"""What no `except StoreError` may take for a lack of data: a handler of these comes before it."""
