"""The one error class of the store, and the hint its messages end in."""

from collections.abc import Iterable
from difflib import get_close_matches


class StoreError(Exception):
    """A store cannot be read or written as asked; the message names the file or the entry at fault."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Return "; the nearest is …" for an error message, "" when there are no names."""
    near = get_close_matches(name, list(names), n=1, cutoff=0.0)
    return f"; the nearest is {near[0]!r}" if near else ""
