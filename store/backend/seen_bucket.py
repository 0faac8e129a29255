"""A bucket as one command sees it: each thing is asked for once, and much at a time.

A round trip to a bucket far away takes longer than all else. So a reader says what it is going to need
(`fetch`), and what was read or listed once stays as it was then. Nothing is written by way of this, and
whoever has to know how things are by now asks the bucket itself (`now`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from store.backend.bucket import Bucket
from store.backend.location import Place
from store.backend.ranges import at_once
from store.backend.requests import has_answered


@dataclass(frozen=True)
class SeenBucket(Bucket):
    """A bucket of which is kept what was read and listed."""

    _contents: dict[str, bytes | None] = field(default_factory=dict, compare=False, repr=False)
    _names: dict[str, list[str]] = field(default_factory=dict, compare=False, repr=False)
    _trees: set[str] = field(default_factory=set, compare=False, repr=False)

    def now(self) -> Place:  # noqa: D102 - as in Place, here and below
        return Bucket(self.url, self.cache)

    def fetch(  # noqa: D102
        self, files: Iterable[str] = (), folders: Iterable[str] = (), trees: Iterable[str] = ()
    ) -> None:
        due: list[Callable[[], object]] = [
            *(partial(self._list_tree, tree) for tree in dict.fromkeys(trees) if tree not in self._trees),
            *(partial(self.names, folder) for folder in dict.fromkeys(folders) if not self._listed(folder)),
            *(partial(self._look, name) for name in dict.fromkeys(files) if name not in self._contents),
        ]
        if due and not has_answered(self.url):  # a wrong address is told by one request as well as by many
            due.pop()()
        at_once(lambda request: request(), due)

    def read(self, name: str) -> bytes:  # noqa: D102
        content = self._look(name)
        if content is None:
            raise FileNotFoundError(f"{self}/{name}")
        return content

    def read_all(self, names: Iterable[str]) -> list[bytes]:  # noqa: D102
        listed = list(names)
        self.fetch(listed)
        return [self.read(name) for name in listed]

    def exists(self, name: str) -> bool:  # noqa: D102
        if name in self._contents:
            return self._contents[name] is not None
        folder, _, last = name.rpartition("/")
        return last in self.names(folder) if self._listed(folder) else super().exists(name)

    def names(self, folder: str, *, follow: bool = True) -> list[str]:  # noqa: D102
        if folder not in self._names:
            if self._listed(folder):  # what it lies in was listed, and this was not there
                return []
            self._names[folder] = super().names(folder, follow=follow)
        return list(self._names[folder])

    def _look(self, name: str) -> bytes | None:
        if name not in self._contents:
            try:
                self._contents[name] = super().read(name)
            except FileNotFoundError:
                self._contents[name] = None
        return self._contents[name]

    def _listed(self, folder: str) -> bool:
        above, _, last = folder.rpartition("/")
        return (
            folder in self._names
            or any(folder == tree or folder.startswith(f"{tree}/") for tree in self._trees)
            or (folder != "" and above in self._names and last not in self._names[above])
        )

    def _list_tree(self, tree: str) -> None:
        """List a folder and all under it, a thousand names for a request."""
        by_folder: dict[str, dict[str, None]] = {}
        for path in self.sizes(tree):
            folder, _, name = path.rpartition("/")
            by_folder.setdefault(folder, {})[name] = None
            while folder != tree:
                folder, _, name = folder.rpartition("/")
                by_folder.setdefault(folder, {})[name] = None
        self._names.update({folder: list(names) for folder, names in by_folder.items()})
        self._trees.add(tree)


def seen_bucket(place: Place) -> Place:
    """Return a bucket of which is kept what is read and listed."""
    return SeenBucket(place.url, place.cache) if isinstance(place, Bucket) else place
