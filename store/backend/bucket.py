"""A store in a bucket of an object store (S3 and what speaks its protocol, Google Cloud Storage, Azure).

A put makes an object visible whole, and with a condition (`If-None-Match: *`, `If-Match: ETAG`) only where
that holds: on this all rests. Whoever loses the answer to such a put looks whether its own content is there.
What several files make up (an adapter) goes up under a name of its own, counts once its manifest is there,
and is read from a copy in this machine's cache. Credentials, endpoint and region are the environment's alone.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

from specs.common.names import BUCKET_SCHEMES, BUCKET_URLS
from specs.common.whole_files import partial_of
from store.backend.location import Hold, Mode, Place
from store.backend.ranges import at_once
from store.backend.records import cache_root, create_json, hash_file, read_json
from store.backend.refusals import refusal
from store.backend.requests import attempts, client, tag_of
from store.backend.result_files import file_trouble
from store.errors import DamagedError, LostClaimError, StoreError, UnreachableError

if TYPE_CHECKING:
    import zarr
    from zarr.storage import StorePath

Answer = TypeVar("Answer")
_MANIFEST = ".manifest.json"


@dataclass(frozen=True)
class Bucket(Place):
    """A store under a prefix of a bucket. What is published is kept in a folder of this machine as well."""

    url: str
    cache: Path

    distant = True

    def __str__(self) -> str:
        return self.url

    def read(self, name: str) -> bytes:  # noqa: D102 - as in Place, here and below
        return self._get(name)[0]

    def read_all(self, names: Iterable[str]) -> list[bytes]:  # noqa: D102
        return at_once(self.read, names)

    def exists(self, name: str) -> bool:  # noqa: D102
        import obstore

        try:
            self._asked(name, lambda: obstore.head(self._client, name))
        except FileNotFoundError:
            return False
        return True

    def names(self, folder: str, *, follow: bool = True) -> list[str]:  # noqa: D102
        import obstore

        listing = self._asked(folder, lambda: obstore.list_with_delimiter(self._client, folder or None))
        paths = [*listing["common_prefixes"], *(entry["path"] for entry in listing["objects"])]
        return [path.rstrip("/").rpartition("/")[2] for path in paths]

    def write(self, name: str, content: bytes) -> None:  # noqa: D102
        import obstore

        self._asked(name, lambda: obstore.put(self._client, name, content))

    def create(self, name: str, content: bytes) -> bool:  # noqa: D102
        return self._put(name, content, "create") is not None

    def swap(self, name: str, former: bytes, content: bytes) -> bool:  # noqa: D102
        present, tag = self._get(name)
        return present == former and self._put(name, content, tag) is not None

    def remove(self, name: str) -> None:  # noqa: D102
        import obstore

        with suppress(FileNotFoundError):
            self._asked(name, lambda: obstore.delete(self._client, name))

    def remove_all(self, name: str) -> None:  # noqa: D102
        # From the top: without its metadata or manifest, nobody takes the rest for whole.
        for path in sorted(
            (entry["path"] for entry in self._entries(name)), key=lambda path: path.count("/")
        ):
            self.remove(path)

    def prune(self, folder: str) -> None:
        """Do nothing: folders are but parts of names."""

    def settle(self, names: Iterable[str]) -> None:
        """Do nothing: what was put is kept."""

    def hold(self, name: str) -> Hold:  # noqa: D102
        return _HeldObject(self, name)

    @contextmanager
    def swapping(self) -> Iterator[None]:  # noqa: D102
        yield

    def file_lock(self) -> None:
        """Return none: a claim is the lock here (`store.lease.lock`). StoreError where none would hold."""
        self._probe()

    def group(self, name: str, mode: Mode = "r") -> zarr.Group:  # noqa: D102
        import zarr

        from store.backend.zarr_bucket import Objects

        store = Objects(self._client, read_only=mode == "r", url=self.url)
        return zarr.open_group(store, path=name, mode=mode, use_consolidated=False)

    def zarr_path(self, name: str) -> StorePath:  # noqa: D102
        from zarr.storage import StorePath

        from store.backend.zarr_bucket import Objects

        return StorePath(Objects(self._client, read_only=True, url=self.url), name)

    def file_sizes(self, names: Sequence[str]) -> list[int | None]:  # noqa: D102
        return at_once(self._file_size, names)

    def scratch(self) -> Path:  # noqa: D102
        return self.cache

    def publish(self, made: Path, name: str) -> bool:  # noqa: D102
        part = uuid4().hex
        files = [made] if made.is_file() else sorted(file for file in made.rglob("*") if file.is_file())
        listed = {}
        for file in files:
            inner = file.name if file is made else file.relative_to(made).as_posix()
            inner = name.rpartition("/")[2] if file is made else inner
            self._upload(file, f"{name}.{part}/{inner}")
            listed[inner] = {"bytes": file.stat().st_size, "blake2b": hash_file(file)}
        manifest = {"part": part, "folder": made.is_dir(), "files": listed}
        if not create_json(self, name + _MANIFEST, manifest):
            self.remove_all(f"{name}.{part}")
            rmtree(made) if made.is_dir() else made.unlink()
            return False
        kept = self._kept(name, part)
        if made.is_dir():
            made.rename(kept)
        else:
            kept.mkdir(parents=True)
            made.rename(kept / name.rpartition("/")[2])
        return True

    def local(self, name: str) -> Path:  # noqa: D102
        manifest = read_json(self, name + _MANIFEST, checked=False)
        kept = self._kept(name, manifest["part"])
        if not kept.is_dir():
            self._download(name, manifest, kept)
        return kept if manifest["folder"] else kept / name.rpartition("/")[2]

    @contextmanager
    def fresh(self) -> Iterator[Place]:  # noqa: D102
        with TemporaryDirectory() as folder:
            yield replace(self, cache=Path(folder))

    def put_aside(self, name: str) -> None:  # noqa: D102
        self.remove(name + _MANIFEST)  # its files are then of those that were never published

    def unpublished(self, folder: str) -> list[str]:  # noqa: D102
        names = self.names(folder)
        manifests = [name for name in names if name.endswith(_MANIFEST)]
        published = {
            f"{name.removesuffix(_MANIFEST)}.{read_json(self, f'{folder}/{name}', checked=False)['part']}"
            for name in manifests
        }
        return [name for name in names if re.search(r"\.[0-9a-f]{32}$", name) and name not in published]

    def size(self, name: str) -> int:  # noqa: D102
        return sum(int(entry["size"]) for entry in self._entries(name))

    def age(self, name: str) -> float:  # noqa: D102
        times = [entry["last_modified"] for entry in self._entries(name)]
        return (datetime.now(UTC) - max(times)).total_seconds() if times else 0.0

    def under(self, folder: str) -> Place:  # noqa: D102
        return Bucket(f"{self.url}/{folder}", self.cache / folder)

    def absolute(self) -> Place:  # noqa: D102
        return self

    def absence(self) -> str:  # noqa: D102
        return "" if self.names("") else "no such store"

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the names and sizes of all objects under a folder."""
        import obstore

        def listed() -> dict[str, int]:
            batches = obstore.list(self._client, folder)
            return {entry["path"]: int(entry["size"]) for batch in batches for entry in batch}

        return self._asked(folder, listed)

    @property
    def _client(self) -> Any:
        return client(self.url)

    def _get(self, name: str) -> tuple[bytes, dict[str, str]]:
        """Return an object's content, and what it is known by in a condition."""
        import obstore

        def get() -> tuple[bytes, dict[str, str]]:
            answer = obstore.get(self._client, name)
            return bytes(answer.bytes()), tag_of(answer.meta)

        return self._asked(name, get)

    def _put(self, name: str, content: bytes, condition: Any) -> dict[str, str] | None:
        """Put an object where the condition holds; give what it is known by, None where it did not hold."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            return tag_of(self._asked(name, lambda: obstore.put(self._client, name, content, mode=condition)))
        except (AlreadyExistsError, PreconditionError):
            pass
        except FileNotFoundError as error:
            if condition == "create":  # nothing has to be there for that
                raise UnreachableError(f"{self}: {refusal(self.url, error)}") from error
            return None
        try:  # the put may have been tried twice, because the first answer was lost
            present, tag = self._get(name)
        except FileNotFoundError:
            return None
        return tag if present == content else None

    def _asked(self, name: str, request: Callable[[], Answer]) -> Answer:
        for attempt in attempts(self.url, name):
            with attempt:
                return request()
        raise AssertionError("the last attempt raises")

    def _file_size(self, name: str) -> int | None:
        import obstore

        try:
            return int(self._asked(name, lambda: obstore.head(self._client, name))["size"])
        except FileNotFoundError:
            return None

    def _entries(self, name: str) -> list[Any]:
        """Return the object of this name, and all under it as a folder."""
        import obstore

        def entries() -> list[Any]:
            entries_read = [entry for batch in obstore.list(self._client, name) for entry in batch]
            try:
                return [obstore.head(self._client, name), *entries_read]
            except FileNotFoundError:
                return entries_read

        return self._asked(name, entries)

    def _upload(self, file: Path, name: str) -> None:
        import obstore

        large = client(self.url, large=True)
        self._asked(name, lambda: obstore.put(large, name, file))  # in parts where it is large

    def _fetch(self, name: str, file: Path) -> None:
        import obstore

        with file.open("wb") as out:
            for chunk in obstore.get(client(self.url, large=True), name).stream():
                out.write(chunk)

    def _download(self, name: str, manifest: dict[str, Any], kept: Path) -> None:
        """Fetch what was published into a folder of this machine, which appears whole."""
        part, partial = manifest["part"], partial_of(kept)
        try:
            for inner, known in manifest["files"].items():
                source, file = f"{name}.{part}/{inner}", partial / inner
                if not file.resolve().is_relative_to(partial.resolve()):
                    raise DamagedError(f"{self}/{name}{_MANIFEST}: names a file outside of its folder")
                file.parent.mkdir(parents=True, exist_ok=True)
                self._asked(source, functools.partial(self._fetch, source, file))
                if trouble := file_trouble(file, known):
                    raise DamagedError(f"{self}/{source}: {trouble}")
            try:
                partial.rename(kept)
            except OSError:  # another process of this machine has fetched it meanwhile
                if not kept.is_dir():
                    raise
        finally:
            rmtree(partial, ignore_errors=True)

    def _kept(self, name: str, part: str) -> Path:
        return self.cache / f"{name}.{part}"

    def _probe(self) -> None:
        """Raise StoreError where conditional puts are not what they have to be."""
        name = f".probe/{uuid4().hex}"
        try:
            first = self._put(name, b"1", "create")
            held = self._put(name, b"2", "create") is None
            second = self._put(name, b"3", first) if first else None
            held &= second is not None and self._put(name, b"4", first) is None and self.read(name) == b"3"
        finally:
            self.remove(name)
        if not held:
            raise StoreError(
                f"{self}: this object store does not heed conditional puts (If-None-Match, If-Match), "
                "which keep several writers apart; expected one that does, or a folder"
            )


class _HeldObject(Hold):
    """An object by its tag, which changes at every put."""

    def __init__(self, bucket: Bucket, name: str) -> None:
        self._bucket, self._name = bucket, name
        self._content, self._tag = bucket._get(name)
        self._turn = Lock()  # a beat may not come between what is read and what it is held against

    def renew(self, offset: int, part: bytes) -> None:
        with self._turn:
            content = self._content[:offset] + part + self._content[offset + len(part) :]
            tag = self._bucket._put(self._name, content, self._tag)
            if tag is None:
                raise LostClaimError(
                    f"{self._bucket}/{self._name}: written over, or removed, by another process"
                )
            self._content, self._tag = content, tag

    def held(self) -> bool:
        try:
            with self._turn:
                return self._bucket.read(self._name) == self._content
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Do nothing: it is held by its tag alone."""


_SETTINGS = ("AWS_", "AZURE_", "GOOGLE_")  # variables that the client reads


def bucket(url: str) -> Bucket:
    """Return the place of a URL; StoreError where it cannot be a store's, or the package is not installed."""
    parts = urlsplit(url)
    if parts.scheme not in BUCKET_SCHEMES:
        raise StoreError(
            f"{_without_user(url)}: a store's URL is one of {BUCKET_URLS}; expected that, or a folder"
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise StoreError(
            f"{_without_user(url)}: a store's URL has no user, password or query; credentials come from the "
            "environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, …)"
        )
    names = parts.path.strip("/").split("/") if parts.path.strip("/") else []
    if not parts.netloc or any(name in ("", ".", "..") for name in names):
        raise StoreError(f"{url}: expected {parts.scheme}://BUCKET/PREFIX, of plain names")
    for name, value in os.environ.items():
        if name.startswith(_SETTINGS) and not value.isprintable():
            raise StoreError(
                f"{url}: ${name} holds a line break or another control character, perhaps at its end; "
                "expected its value without"
            )
    try:
        import obstore  # noqa: F401
    except ImportError as error:
        raise StoreError(
            f"{url}: a store in a bucket needs the package obstore; expected: "
            "pip install 'ablation-engine[cloud]'"
        ) from error
    whole = "/".join([f"{parts.scheme}://{parts.netloc}", *names])
    return Bucket(whole, cache_root() / "stores" / blake2b(whole.encode(), digest_size=8).hexdigest())


def _without_user(url: str) -> str:
    return re.sub(r"//[^/]*@", "//", url).partition("?")[0]
