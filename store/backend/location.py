"""Where a store lies, whatever it is: all else asks a `Place` (`backend.locate` finds the right one).

Names are paths inside the store, parted by "/". What several processes rely on is `create` (one of them makes
a file), `swap` (one of them replaces what it has read) and `Hold` (a file that is still one's own), and that
whoever reads or lists meets whole files.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import zarr
    from zarr.storage import StorePath

Mode = Literal["r", "r+"]
DOOMED = ".garbage"  # suffix of a folder that is being removed


class Hold(ABC):
    """A file that this process has made, to be told apart from another's of the same name."""

    @abstractmethod
    def renew(self, offset: int, part: bytes) -> None:
        """Write over a part of it, unless it is another's by now; StoreError or OSError where that fails."""

    @abstractmethod
    def held(self) -> bool:
        """Tell whether the file of this name is still this one."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it; the file stays."""


class Place(ABC):
    """What a store needs of where it lies; `str` gives how a person names it."""

    distant = False
    """Whether a look costs a round trip."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return a file's content; FileNotFoundError where there is none."""

    @abstractmethod
    def read_all(self, names: Iterable[str]) -> list[bytes]:
        """Return the contents of many small files."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Tell whether there is such a file."""

    @abstractmethod
    def names(self, folder: str, *, follow: bool = True) -> list[str]:
        """Return the names in a folder, in no order; none where it is missing, or a link (not `follow`)."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Make or replace a file as a whole, and have it kept."""

    @abstractmethod
    def create(self, name: str, content: bytes) -> bool:
        """Make a file as a whole, and have it kept; False, changing nothing, when it is there already."""

    @abstractmethod
    def swap(self, name: str, former: bytes, content: bytes) -> bool:
        """Replace a file that still holds `former`; False where it does not. To be used within `swapping`."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file; nothing happens where there is none."""

    @abstractmethod
    def remove_all(self, name: str) -> None:
        """Remove a file, or a folder and all in it, of which nothing half is left in its place."""

    @abstractmethod
    def prune(self, folder: str) -> None:
        """Remove a folder in which no whole file is left."""

    @abstractmethod
    def settle(self, names: Iterable[str]) -> None:
        """Have files of one folder kept, however they were written."""

    @abstractmethod
    def hold(self, name: str) -> Hold:
        """Hold a file that this process has just created."""

    @abstractmethod
    def swapping(self) -> AbstractContextManager[None]:
        """Create and swap, to be repeated where a swap fails; a folder lets in one process at a time."""

    @abstractmethod
    def file_lock(self) -> AbstractContextManager[None] | None:
        """Return the lock that the file system keeps for a store; None where there is none."""

    @abstractmethod
    def group(self, name: str, mode: Mode = "r") -> zarr.Group:
        """Open a Zarr group, to read it or to write rows of its arrays; FileNotFoundError for none."""

    @abstractmethod
    def zarr_path(self, name: str) -> StorePath:
        """Return where zarr reads a group, whether or not there is one."""

    @abstractmethod
    def file_sizes(self, names: Sequence[str]) -> list[int | None]:
        """Return the sizes of files: None for one that is missing, 0 for a folder in its place."""

    @abstractmethod
    def scratch(self) -> Path:
        """Return a folder on this machine for what is under way here."""

    @abstractmethod
    def publish(self, made: Path, name: str) -> bool:
        """Move the file or folder `made` to its place as a whole; False, dropping it, where one is there."""

    @abstractmethod
    def local(self, name: str) -> Path:
        """Return what was published, as a path on this machine; without it that fails, or leads nowhere."""

    @abstractmethod
    def fresh(self) -> AbstractContextManager[Place]:
        """Give this place without what this machine may have kept of it."""

    @abstractmethod
    def put_aside(self, name: str) -> None:
        """Take what was published from its place, in which another one shall come."""

    @abstractmethod
    def unpublished(self, folder: str) -> list[str]:
        """Return the names in a folder of what was to be published, and has not been."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Return the size of a file, or of all in a folder."""

    @abstractmethod
    def age(self, name: str) -> float:
        """Return the seconds since a file, or the newest in a folder, was written; 0 where there is none."""

    @abstractmethod
    def under(self, folder: str) -> Place:
        """Return a folder of this place as one."""

    @abstractmethod
    def absolute(self) -> Place:
        """Return the same place for a process that works in another folder."""

    @abstractmethod
    def absence(self) -> str:
        """Give the message that no store is here; empty where there may be one."""

    def now(self) -> Place:
        """Return a place that was `seen` (`backend.locate`) as it is by now."""
        return self

    def fetch(  # noqa: B027
        self, files: Iterable[str] = (), folders: Iterable[str] = (), trees: Iterable[str] = ()
    ) -> None:
        """Of a place that was `seen`: ask at once for files to read, folders (and all in `trees`) to list.

        Nothing happens where a look costs no round trip.
        """


Root: TypeAlias = str | os.PathLike[str] | Place  # what names a store


def is_url(text: str) -> bool:
    """Tell whether a store's name is a URL and not a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None
