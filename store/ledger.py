"""The ledger: which stage keys are done, failed or running, as one small JSON record each.

A stage's results count only once its done record is here, so that record is written last.
"""

import os
import platform
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from store.errors import StoreError
from store.files import Json, locked, read_json, write_json

Status = Literal["done", "failed", "running"]


class Ledger:
    """The records of one store; opening it for reading creates nothing, and no folder means no records."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def done(self, stage: str) -> set[str]:
        """Keys of `stage` whose results are complete, from one directory listing and no file read."""
        return set(self._keys(stage, "done"))

    def failed(self, stage: str) -> set[str]:
        """Keys of `stage` whose last attempt failed."""
        return set(self._keys(stage, "failed"))

    def running(self, stage: str) -> set[str]:
        """Keys of `stage` that a live process works on; processes of other hosts are taken to be alive."""
        return {key for key in self._keys(stage, "running") if self._holder(stage, key)}

    def record(self, stage: str, key: str, status: Status = "done") -> Json:
        """Return a key's record; StoreError when there is none, or when it is damaged."""
        path = self._path(stage, key, status)
        try:
            return read_json(path)
        except FileNotFoundError as error:
            raise StoreError(f"{path}: no {status} record of {stage} {key}") from error

    def start(self, stage: str, key: str) -> bool:
        """Mark a key as running in this process; False, changing nothing, when another live one holds it."""
        with locked(self.root):
            if self._holder(stage, key) not in (None, (platform.node(), os.getpid())):
                return False
            mark = {"host": platform.node(), "pid": os.getpid(), "started": time.time()}
            write_json(self._path(stage, key, "running"), mark)
            return True

    def commit(self, stage: str, key: str, record: Mapping[str, Any]) -> None:
        """Make a key's results visible; call it last, when all that belongs to them is on disk."""
        write_json(self._path(stage, key, "done"), record)
        self._remove(self._path(stage, key, "failed"), self._path(stage, key, "running"), self.progress(key))

    def fail(self, stage: str, key: str, record: Mapping[str, Any]) -> None:
        """Record a failed attempt (its error and traceback) and end its running mark."""
        write_json(self._path(stage, key, "failed"), record)
        self._remove(self._path(stage, key, "running"))

    def clear(self, stage: str, key: str) -> None:
        """Forget a key: its records and how far its arrays were written. Its results stay, unseen."""
        paths = [self._path(stage, key, status) for status in ("done", "failed", "running")]
        self._remove(*paths, self.progress(key))

    def progress(self, key: str) -> Path:
        """Return the file that says how much of a key's arrays an unfinished writer left on disk."""
        return self.root / "progress" / f"{key}.json"

    def _path(self, stage: str, key: str, status: str) -> Path:
        return self.root / "ledger" / stage / f"{key}.{status}.json"

    def _keys(self, stage: str, status: Status) -> Iterator[str]:
        suffix = f".{status}.json"
        try:
            with os.scandir(self.root / "ledger" / stage) as entries:
                # Hidden names are files still being written, or left by a crash at that moment.
                names = [entry.name for entry in entries if entry.name[0] != "."]
        except FileNotFoundError:
            return
        yield from (name.removesuffix(suffix) for name in names if name.endswith(suffix))

    def _holder(self, stage: str, key: str) -> tuple[str, int] | None:
        """Return host and process of a key's running mark, unless that process is known to be dead."""
        path = self._path(stage, key, "running")
        try:
            mark = read_json(path)
            host, pid = str(mark["host"]), int(mark["pid"])
        except FileNotFoundError:
            return None
        except (KeyError, ValueError) as error:
            raise StoreError(f"{path}: expected the host and pid of a running mark") from error
        return (host, pid) if host != platform.node() or _alive(pid) else None

    @staticmethod
    def _remove(*paths: Path) -> None:
        for path in paths:
            path.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives, as somebody else's
        return True
    return True
