"""Files of arrays in a bucket: fetched many at a time, ahead of who reads row by row, and kept a while."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from threading import RLock
from typing import TYPE_CHECKING

from store.backend.location import Place
from store.backend.ranges import at_once, ends, parts

if TYPE_CHECKING:
    from store.backend.bucket import Bucket

KEPT = 2**27
"""Bytes of one group's files that are kept."""

WHOLE = 2**40
"""More bytes than a file has."""

_ASKED = 2  # rows whose files are asked for by themselves

Span = tuple[int, bytes]
"""Where bytes of a file begin, and they."""


class FarFiles:
    """What was fetched of the files of one group; those of a finished row never change."""

    def __init__(self, place: Bucket) -> None:
        self._place, self._lock, self._bytes = place, RLock(), 0
        self._rows_asked, self._folders, self._sizes = 0, set[str](), dict[str, int]()
        self._known: OrderedDict[str, tuple[int, list[Span]] | None] = OrderedDict()  # with the file's size

    def __deepcopy__(self, _: object) -> FarFiles:
        return self  # whoever copies a variable reads the same files

    def lacking(self, files: Iterable[str]) -> list[str]:
        """Return those of some files of which nothing is known."""
        with self._lock:
            return [file for file in dict.fromkeys(files) if file not in self._known]

    def room(self) -> int:
        """Return how many files, as large as those so far, can be fetched ahead."""
        with self._lock:
            return KEPT * max(1, len(self._known)) // (2 * max(1, self._bytes))

    def fetch_ends(self, files: Iterable[str], length: int) -> None:
        """Fetch the last bytes of files, at once; all of a shorter one."""
        with self._lock:
            due = self.lacking(files)
            for file, end in zip(due, ends(self._place.url, due, length), strict=True):
                self._known[file] = end and (end[0], [(end[0] - len(end[1]), end[1])])
                self._bytes += len(end[1]) if end else 0
            self._drop(len(due))

    def fetch_parts(self, wanted: Iterable[tuple[str, int, int]]) -> None:
        """Fetch parts of files of which the ends are known, at once: (file, start, length)."""
        with self._lock:
            due = [part for part in wanted if self._span(*part) is None]
            for (file, start, _), content in zip(due, parts(self._place.url, due), strict=True):
                if known := self._known.get(file):
                    known[1].append((start, content))
                    self._bytes += len(content)

    def size(self, file: str) -> int:
        """Return the size of a file; FileNotFoundError where it is missing."""
        with self._lock:
            if file not in self._known:
                self.fetch_ends([file], 1)
            known = self._known[file]
        if known is None:
            raise FileNotFoundError(f"{self._place}/{file}")
        return known[0]

    def read(self, file: str, start: int, length: int) -> bytes:
        """Return a part of a file, asked for by itself where it was not fetched before."""
        with self._lock:
            if (span := self._span(file, start, length)) is None:
                self.fetch_parts([(file, start, length)])
                span = self._span(file, start, length)
        return span or b""

    def sizes(self, files: Sequence[str]) -> list[int | None]:
        """Return the sizes of the files of a row; None for one that is missing.

        After some rows their folders are listed, once for all rows, unless what was found since differs.
        """
        with self._lock:
            self._rows_asked += 1
            if self._rows_asked <= _ASKED:
                return self._place.file_sizes(files)
            stale = any(
                file in self._known and self._known[file] is None and file in self._sizes for file in files
            )
            folders = dict.fromkeys(file.rpartition("/")[0] for file in files)
            if due := [folder for folder in folders if stale or folder not in self._folders]:
                self._sizes.update(
                    item for sizes in at_once(self._place.sizes, due) for item in sizes.items()
                )
                self._folders.update(due)
            return [self._sizes.get(file) for file in files]

    def _span(self, file: str, start: int, length: int) -> bytes | None:
        known = self._known.get(file)
        for begin, content in known[1] if known else ():
            if begin <= start and start + length <= begin + len(content):
                return content[start - begin : start - begin + length]
        return None

    def _drop(self, newest: int) -> None:
        """Forget what was fetched longest ago, where it is too much."""
        while self._bytes > KEPT and len(self._known) > newest:
            _, known = self._known.popitem(last=False)
            self._bytes -= sum(len(content) for _, content in known[1]) if known else 0


def far_files(place: Place) -> FarFiles | None:
    """Return what keeps the files of a group; None where they are at hand."""
    if not place.distant:
        return None
    from store.backend.bucket import Bucket

    return FarFiles(place) if isinstance(place, Bucket) else None
