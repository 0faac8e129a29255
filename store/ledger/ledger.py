"""The ledger: which stage keys are done, failed or running, as one small JSON record each.

A stage's results count only once its done record is here, so that record is written last.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from store.backend.locate import place_of
from store.backend.location import Root
from store.backend.records import (
    Json,
    create_json,
    is_plain,
    parse_record,
    plain,
    read_file,
    read_json,
    write_json,
)
from store.errors import MEND, DamagedError, LostClaimError, StoreError
from store.lease.claims import LEASE, Claim, Claims, claimed
from store.ledger.version import has_store

Status = Literal["done", "failed"]


class Ledger:
    """The records of one store; opening it for reading creates nothing, and no folder means no records.

    StoreError for a store of another layout; `check` False leaves that to the caller.
    """

    def __init__(self, root: Root, lease: float = LEASE, *, check: bool = True) -> None:
        self.place = place_of(root)
        if check:
            has_store(self.place)
        self.claims = Claims(self.place, lease)
        self._held: dict[tuple[str, str], Claim] = {}

    def now(self) -> "Ledger":
        """Return the ledger as it is by now, of a place that was `seen` before."""
        return Ledger(self.place.now(), check=False)

    def stages(self) -> list[str]:
        """Stages of which there are records, in order; other files there are nobody's."""
        return sorted(filter(is_plain, self.place.names("ledger")))

    def done(self, stage: str) -> set[str]:
        """Keys of a stage whose results are complete, from one directory listing and no file read.

        Args:
            stage: the stage's name.
        """
        return set(self._keys(stage, "done"))

    def failed(self, stage: str) -> set[str]:
        """Keys of a stage whose last attempt failed.

        Args:
            stage: the stage's name.
        """
        return set(self._keys(stage, "failed"))

    def running(self, stage: str) -> set[str]:
        """Keys of a stage that a process works on which is not known to be dead.

        Args:
            stage: the stage's name.
        """
        return set(claimed(self.place, stage))

    def has(self, stage: str, key: str, status: Status = "done") -> bool:
        """Tell whether a key has such a record.

        Args:
            stage: the stage's name.
            key: the stage key.
            status: done or failed.
        """
        return self.place.exists(record_name(stage, key, status))

    def record(self, stage: str, key: str, status: Status = "done") -> Json:
        """Return a key's record.

        Args:
            stage: the stage's name.
            key: the stage key.
            status: done or failed.

        Raises:
            StoreError: when there is none, or when it is damaged.
        """
        name = record_name(stage, key, status)
        try:
            return read_json(self.place, name)
        except FileNotFoundError as error:
            raise StoreError(f"{self.place}/{name}: no {status} record of {stage} {key}") from error

    def records(self, stage: str, keys: Iterable[str]) -> dict[str, Json]:
        """Return the done records of many keys, which opens and reads small files and does little else.

        Args:
            stage: the stage's name.
            keys: stage keys, all of them done.

        Returns:
            the records, in the order of the keys.
        """
        names = {key: record_name(stage, key, "done") for key in keys}
        try:
            texts = self.place.read_all(names.values())
        except OSError:  # a link that leads nowhere, a folder: one of them
            texts = [self._text(name) for name in names.values()]
        return {
            key: parse_record(text, f"{self.place}/{name}")
            for (key, name), text in zip(names.items(), texts, strict=True)
        }

    def _text(self, name: str) -> bytes:
        try:
            return read_file(self.place, name)
        except FileNotFoundError as error:
            raise DamagedError(f"{self.place}/{name}: missing; {MEND}") from error

    def start(self, stage: str, key: str) -> Claim | None:
        """Claim a key for this process until commit, fail or release.

        Args:
            stage: the stage's name.
            key: the stage key.

        Returns:
            the claim; None while another process holds the key. Ask `has` afterwards: whoever held it before
            may have finished it just now.
        """
        if (stage, key) not in self._held:
            claim = self.claims.take(stage, key)
            if claim is None:
                return None
            self._held[stage, key] = claim
        return self._held[stage, key]

    def free(self, stage: str, key: str) -> bool:
        """Tell whether `start` could succeed now; silence of another machine's process counts from here.

        Args:
            stage: the stage's name.
            key: the stage key.
        """
        return (stage, key) in self._held or self.claims.free(stage, key)

    def lost(self, stage: str, key: str) -> bool:
        """Tell whether another process has taken over what this one had claimed.

        Args:
            stage: the stage's name.
            key: the stage key.
        """
        try:
            if claim := self._held.get((stage, key)):
                claim.check(now=True)
        except LostClaimError:
            return True
        return False

    def release(self, stage: str, key: str) -> None:
        """End this process's claim, if it has one, without a result.

        Args:
            stage: the stage's name.
            key: the stage key.
        """
        if claim := self._held.get((stage, key)):
            claim.release()
            self._held.pop((stage, key), None)

    def commit(self, stage: str, key: str, record: Mapping[str, Any]) -> None:
        """Make a key's results visible; call it last, when all that belongs to them is on disk.

        Args:
            stage: the stage's name.
            key: the stage key.
            record: what the record is to hold, as JSON can.

        Raises:
            LostClaimError: when the claim is lost, or another process has committed first.
        """
        claim, name = self._held.get((stage, key)), record_name(stage, key, "done")
        if claim is None:
            write_json(self.place, name, record)
        else:
            claim.check(now=True)
            if not create_json(self.place, name, record):
                raise LostClaimError(f"{self.place}/{name}: another process has finished this stage first")
        self._remove(record_name(stage, key, "failed"), progress_name(key))
        self.release(stage, key)

    def fail(self, stage: str, key: str, record: Mapping[str, Any]) -> None:
        """Record a failed attempt and end its claim.

        Args:
            stage: the stage's name.
            key: the stage key.
            record: its error and traceback.

        Raises:
            LostClaimError: when another process has taken the key over, for then it is no longer this one's.
        """
        if claim := self._held.get((stage, key)):
            claim.check(now=True)
        write_json(self.place, record_name(stage, key, "failed"), record)
        self.release(stage, key)

    def clear(self, stage: str, key: str) -> None:
        """Forget a key: its records and how far its arrays were written. Its results stay, unseen.

        Args:
            stage: the stage's name.
            key: the stage key.
        """
        if stage != "data":  # which has no arrays, that would seem to have lost their record
            write_json(self.place, progress_name(key), {"items": 0})
        self._remove(record_name(stage, key, "done"), record_name(stage, key, "failed"))
        self.release(stage, key)

    def _keys(self, stage: str, status: Status) -> Iterator[str]:
        suffix = f".{status}.json"
        for name in self.place.names(f"ledger/{plain(stage)}"):
            # Hidden names are files still being written, or left by a crash at that moment.
            # So are copies with a space in their names nobody's.
            if name.endswith(suffix) and is_plain(key := name.removesuffix(suffix)):
                yield key

    def _remove(self, *names: str) -> None:
        for name in names:
            self.place.remove(name)


def progress_name(key: str) -> str:
    """Return the file that says how much of a key's arrays an unfinished writer left on disk."""
    return f"progress/{plain(key)}.json"


def is_record(name: str) -> bool:
    """Tell whether a file of a stage's folder has the name of a record."""
    key, _, status = name.partition(".")
    return is_plain(key) and status in ("done.json", "failed.json")


def record_name(stage: str, key: str, status: Status) -> str:
    """Return the file of a record in the store."""
    return f"ledger/{plain(stage)}/{plain(key)}.{status}.json"
