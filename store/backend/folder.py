"""A store in a folder, of this machine or shared by many: rename, hard links, fsync and flock."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from specs.common.spelling import alike
from specs.common.whole_files import PARTIAL, beside, write_synced
from store.backend.location import DOOMED, Hold, Mode, Place
from store.backend.records import sync
from store.errors import StoreError

if TYPE_CHECKING:
    import zarr
    from zarr.storage import StorePath

try:
    import fcntl
except ImportError:  # a platform without it can still read a store
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Folder(Place):
    """A store in a folder, of this machine or shared by many.

    Files are written beside their places and moved there by rename or link; `fsync` comes before that.
    """

    root: Path

    def __str__(self) -> str:
        return str(self.root)

    def read(self, name: str) -> bytes:  # noqa: D102 - as in Place, here and below
        descriptor = os.open(self._path(name), os.O_RDONLY | os.O_NONBLOCK)  # a pipe would wait for a writer
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "no regular file", f"{self.root}/{name}")
            return file.read()

    def read_all(self, names: Iterable[str]) -> list[bytes]:  # noqa: D102
        contents = []
        for name in names:
            descriptor = os.open(
                f"{self.root}/{name}", os.O_RDONLY | os.O_NONBLOCK
            )  # as little as can be: they are many
            try:
                contents.append(os.read(descriptor, os.fstat(descriptor).st_size))
            finally:
                os.close(descriptor)
        return contents

    def exists(self, name: str) -> bool:  # noqa: D102
        return self._path(name).exists()

    def names(self, folder: str, *, follow: bool = True) -> list[str]:  # noqa: D102
        path = f"{self.root}/{folder}"
        if not follow and Path(path).is_symlink():
            return []
        try:
            return os.listdir(path)  # noqa: PTH208 - as little as can be, for records are many
        except (FileNotFoundError, NotADirectoryError):
            return []

    def write(self, name: str, content: bytes) -> None:  # noqa: D102
        with self._written(name, content, keep=True) as temporary:
            temporary.replace(self._path(name))

    def create(self, name: str, content: bytes) -> bool:  # noqa: D102
        with self._written(name, content, keep=True) as temporary:
            return self._linked(temporary, name)

    def swap(self, name: str, former: bytes, content: bytes) -> bool:  # noqa: D102
        if self.read(name) != former:
            return False
        with self._written(name, content, keep=False) as temporary:
            temporary.replace(self._path(name))
        return True

    def remove(self, name: str) -> None:  # noqa: D102
        self._path(name).unlink(missing_ok=True)

    def remove_all(self, name: str) -> None:  # noqa: D102
        path = self._path(name)
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            return
        if path.suffix != DOOMED:
            path = path.rename(path.with_name(path.name + DOOMED))  # a group half deleted could be written to
        shutil.rmtree(path)

    def prune(self, folder: str) -> None:  # noqa: D102
        path = self._path(folder)
        for partial in path.glob(".*.tmp"):
            partial.unlink(missing_ok=True)
        with suppress(OSError):  # somebody is making a file in it
            path.rmdir()

    def settle(self, names: Iterable[str]) -> None:  # noqa: D102
        paths = [self._path(name) for name in names]
        for path in (*paths, *dict.fromkeys(path.parent for path in paths)):
            sync(path)

    def hold(self, name: str) -> Hold:  # noqa: D102
        return _HeldFile(self._path(name))

    @contextmanager
    def swapping(self) -> Iterator[None]:  # noqa: D102
        with self.file_lock():
            yield

    @contextmanager
    def file_lock(self) -> Iterator[None]:
        """Hold the store's one lock, against other threads and other processes alike.

        The system releases it when its holder dies, so it is never left behind. Not re-entrant.
        """
        if fcntl is None:
            raise StoreError(f"{self}: writing a store needs POSIX file locks, which this platform lacks")
        self.root.mkdir(parents=True, exist_ok=True)
        with self._path(".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def group(self, name: str, mode: Mode = "r") -> zarr.Group:  # noqa: D102
        import zarr

        return zarr.open_group(self._path(name), mode=mode, use_consolidated=False)

    def zarr_path(self, name: str) -> StorePath:  # noqa: D102
        from zarr.storage import LocalStore, StorePath

        return StorePath(LocalStore(self._path(name), read_only=True))

    def file_sizes(self, names: Sequence[str]) -> list[int | None]:  # noqa: D102
        return [_file_size(f"{self.root}/{name}") for name in names]

    def scratch(self) -> Path:  # noqa: D102
        return self.root

    def publish(self, made: Path, name: str) -> bool:  # noqa: D102
        final = self._path(name)
        if made.is_file():
            sync(made)
            first = self._linked(made, name)
            made.unlink()
            if not first:
                return False
        else:
            for file in (*made.iterdir(), made):
                sync(file)
            try:
                made.rename(final)
            except OSError:
                if not final.exists():
                    raise
                shutil.rmtree(made)
                return False
        sync(final.parent)
        return True

    def local(self, name: str) -> Path:  # noqa: D102
        return self._path(name)

    @contextmanager
    def fresh(self) -> Iterator[Place]:  # noqa: D102
        yield self

    def put_aside(self, name: str) -> None:  # noqa: D102
        if os.path.lexists(self._path(name)):
            aside = f"{name}.damaged"
            self.remove_all(aside)
            self._path(name).rename(self._path(aside))

    def unpublished(self, folder: str) -> list[str]:  # noqa: D102
        return [name for name in self.names(folder) if name.endswith(PARTIAL)]

    def size(self, name: str) -> int:  # noqa: D102
        return _size(self._path(name))

    def age(self, name: str) -> float:  # noqa: D102
        try:
            return time.time() - self._path(name).lstat().st_mtime
        except FileNotFoundError:
            return 0.0

    def under(self, folder: str) -> Place:  # noqa: D102
        return Folder(self._path(folder))

    def absolute(self) -> Place:  # noqa: D102
        # Where links lead in a circle, `resolve` raises.
        return Folder(Path(os.path.realpath(self.root)))

    def absence(self) -> str:  # noqa: D102
        if self.root.is_dir():
            return ""
        parent = self.root.absolute().parent
        siblings = [path.name for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []
        return f"no such store{alike(self.root.name, siblings)}"

    def _path(self, name: str) -> Path:
        return self.root / name

    def _linked(self, made: Path, name: str) -> bool:
        """Give a whole file its place by a hard link, which of several processes succeeds for one."""
        try:
            os.link(made, self._path(name))
        except FileExistsError:
            # A network file system may have made the link and lost the answer.
            return made.stat().st_nlink == 2
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
                raise
            raise StoreError(f"{self}/{name}: writing a store needs a file system with hard links") from error
        return True

    @contextmanager
    def _written(self, name: str, content: bytes, *, keep: bool) -> Iterator[Path]:
        """Give a file with the content beside its place, to be moved there."""
        path = self._path(name)
        with beside(path) as temporary:
            write_synced(temporary, content, keep=keep)
            yield temporary
        if keep:
            sync(path.parent)


class _HeldFile(Hold):
    """A file that is open: one that was removed, and made anew by another, has another inode."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("r+b", buffering=0)

    def renew(self, offset: int, part: bytes) -> None:
        os.pwrite(self._file.fileno(), part, offset)
        os.fsync(self._file.fileno())  # network file systems hold writes back

    def held(self) -> bool:
        try:
            return self._path.stat().st_ino == os.fstat(self._file.fileno()).st_ino
        except FileNotFoundError:
            return False

    def close(self) -> None:
        self._file.close()


def _file_size(path: str) -> int | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - as little as can be, for chunks are many
    except PermissionError:  # it may be there
        raise
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _size(path: Path) -> int:
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size if path.exists() else 0
    return sum(map(_size, path.iterdir()))
