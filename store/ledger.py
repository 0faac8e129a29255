"""The ledger: which stage keys are done, failed or running, as one small JSON record each.

A stage's results count only once its done record is here, so that record is written last.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from store.claims import LEASE, Claim, Claims, claimed
from store.errors import LostClaimError, StoreError
from store.files import Json, create_json, parse_json, plain, read_json, write_json
from store.version import layout_version

Status = Literal["done", "failed"]


class Ledger:
    """The records of one store; opening it for reading creates nothing, and no folder means no records."""

    def __init__(self, root: str | os.PathLike[str], lease: float = LEASE) -> None:
        self.root = Path(root)
        layout_version(self.root)
        self.claims = Claims(self.root, lease)
        self._held: dict[tuple[str, str], Claim] = {}

    def done(self, stage: str) -> set[str]:
        """Keys of `stage` whose results are complete, from one directory listing and no file read."""
        return set(self._keys(stage, "done"))

    def failed(self, stage: str) -> set[str]:
        """Keys of `stage` whose last attempt failed."""
        return set(self._keys(stage, "failed"))

    def running(self, stage: str) -> set[str]:
        """Keys of `stage` that a process works on which is not known to be dead."""
        return set(claimed(self.root, stage))

    def has(self, stage: str, key: str, status: Status = "done") -> bool:
        """Tell whether a key has such a record."""
        return self._path(stage, key, status).exists()

    def record(self, stage: str, key: str, status: Status = "done") -> Json:
        """Return a key's record; StoreError when there is none, or when it is damaged."""
        path = self._path(stage, key, status)
        try:
            return read_json(path)
        except FileNotFoundError as error:
            raise StoreError(f"{path}: no {status} record of {stage} {key}") from error

    def records(self, stage: str, keys: Iterable[str]) -> dict[str, Json]:
        """Return the done records of many keys, which opens and reads small files and does little else."""
        folder, found = f"{self.root}/ledger/{plain(stage)}", {}
        for key in keys:
            path = f"{folder}/{plain(key)}.done.json"
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError as error:
                raise StoreError(f"{path}: no done record of {stage} {key}") from error
            try:
                text = os.read(descriptor, os.fstat(descriptor).st_size)
            finally:
                os.close(descriptor)
            found[key] = parse_json(text, path)
        return found

    def start(self, stage: str, key: str) -> Claim | None:
        """Claim a key for this process until commit, fail or release; None while another one holds it.

        Ask `has` afterwards: whoever held it before may have finished it just now.
        """
        if (stage, key) not in self._held:
            claim = self.claims.take(stage, key)
            if claim is None:
                return None
            self._held[stage, key] = claim
        return self._held[stage, key]

    def free(self, stage: str, key: str) -> bool:
        """Tell whether `start` could succeed now; silence of another machine's process counts from here."""
        return (stage, key) in self._held or self.claims.free(stage, key)

    def release(self, stage: str, key: str) -> None:
        """End this process's claim, if it has one, without a result."""
        if claim := self._held.pop((stage, key), None):
            claim.release()

    def commit(self, stage: str, key: str, record: Mapping[str, Any]) -> None:
        """Make a key's results visible; call it last, when all that belongs to them is on disk.

        Under a claim LostClaimError when it is lost, or another process has committed first.
        """
        claim, path = self._held.get((stage, key)), self._path(stage, key, "done")
        if claim is None:
            write_json(path, record)
        else:
            claim.check()
            if not create_json(path, record):
                raise LostClaimError(f"{path}: another process has finished this stage first")
        self._remove(self._path(stage, key, "failed"), self.progress(key))
        self.release(stage, key)

    def fail(self, stage: str, key: str, record: Mapping[str, Any]) -> None:
        """Record a failed attempt (its error and traceback) and end its claim.

        LostClaimError when another process has taken the key over, for then it is no longer this one's.
        """
        if claim := self._held.get((stage, key)):
            claim.check()
        write_json(self._path(stage, key, "failed"), record)
        self.release(stage, key)

    def clear(self, stage: str, key: str) -> None:
        """Forget a key: its records and how far its arrays were written. Its results stay, unseen."""
        self._remove(*(self._path(stage, key, status) for status in ("done", "failed")), self.progress(key))
        self.release(stage, key)

    def progress(self, key: str) -> Path:
        """Return the file that says how much of a key's arrays an unfinished writer left on disk."""
        return self.root / "progress" / f"{plain(key)}.json"

    def _path(self, stage: str, key: str, status: str) -> Path:
        return self.root / "ledger" / plain(stage) / f"{plain(key)}.{status}.json"

    def _keys(self, stage: str, status: Status) -> Iterator[str]:
        suffix = f".{status}.json"
        try:
            with os.scandir(self.root / "ledger" / plain(stage)) as entries:
                # Hidden names are files still being written, or left by a crash at that moment.
                names = [entry.name for entry in entries if entry.name[0] != "."]
        except FileNotFoundError:
            return
        yield from (name.removesuffix(suffix) for name in names if name.endswith(suffix))

    @staticmethod
    def _remove(*paths: Path) -> None:
        for path in paths:
            path.unlink(missing_ok=True)
