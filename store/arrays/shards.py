"""The sharding format of Zarr v3, as `store.arrays.layout` lays arrays out, read and written here.

Of many rows one statistic is read: a chunk from each of many shards, by several threads at a time. zarr
passes every chunk through many objects. zarr 3.4.2 takes, on two cores and in one run with this module
(`python -m benchmarks.shards`, the least of three runs): 7.7 times as long to read a cell by its synchronous
pipeline (`FusedCodecPipeline`), 2.6 times for 64 cells and 1.8 times to write a shard; 8.4, 8.4 and 2.8 times
by its default one. Whatever is laid out otherwise is left to zarr.

A shard holds the chunks of all statistics, one behind the other, then where each begins and ends, then the
CRC-32C of that.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from attrs import frozen
from numcodecs.zstd import Zstd
from numpy.typing import NDArray
from zarr.storage import LocalStore

from store.arrays.far_files import FarFiles
from store.arrays.layout import chunk_files
from store.backend.location import Place

_ABSENT = 2**64 - 1  # offset of a chunk that is all fill value
_ROWS_PER_THREAD = 16  # with fewer, starting threads takes longer than they save
_END = 2**18  # bytes of a far shard that are fetched with its index: all of a small one
_SHORT = "it is shorter than its index"
_CHECKSUM = 4  # bytes, behind the index and behind each chunk that has one
_LITTLE_ENDIAN = {"name": "bytes", "configuration": {"endian": "little"}}
_SINGLE_BYTES = {"name": "bytes"}
_CRC32C = {"name": "crc32c"}


@frozen
class _Codecs:
    """How the chunks in an array's shards are encoded."""

    level: int
    checksum: bool  # of zstd's own, inside a chunk
    checked: bool  # whether a CRC-32C stands behind each chunk


@frozen
class ShardReader:
    """Reads rows of one stacked array."""

    array: zarr.Array[Any]
    folder: Path | str
    checked: bool
    """Whether a checksum stands behind each chunk; there is always one behind a shard's index."""
    far: FarFiles | None = None
    """What was fetched of the files, where they are far away; `folder` is a name in the store then."""

    @classmethod
    def of(cls, array: zarr.Array[Any], folder: str = "", far: FarFiles | None = None) -> ShardReader | None:
        """Return a reader of this array; None where it is laid out in another way than this one knows."""
        codecs, store = _codecs(array), array.store_path.store
        if codecs is not None and isinstance(store, LocalStore):
            return cls(array, store.root / array.path, codecs.checked)
        if codecs is None or far is None:
            return None
        return cls(array, folder, codecs.checked, far)

    def fetch(self, rows: NDArray[np.intp], statistic: int) -> None:
        """Fetch what is read of far rows at once: the ends of shards, and chunks that lie before them."""
        if self.far is None:
            return
        files = [file for row in rows.tolist() for file in self.files(row)]
        self.far.fetch_ends(files, self._index_length + _END)
        due = []
        for file in files:
            with suppress(ValueError, FileNotFoundError):  # told when it is read
                if (place := self._place(file, statistic)) is not None:
                    due.append((file, *place))
        self.far.fetch_parts(due)

    def files(self, row: int) -> list[str]:
        """Return the files of a row."""
        return [self._file(row, block) for block in range(-(-self.array.shape[2] // self.array.chunks[2]))]

    def read(
        self,
        rows: NDArray[np.intp],
        statistic: int,
        rest: tuple[Any, ...],
        absent: Callable[[int], None] = lambda row: None,
    ) -> NDArray[Any]:
        """Return one statistic of the rows; `rest` selects along each further dimension by itself.

        ValueError, RuntimeError or OSError where bytes are damaged. `absent` is told of a row of which a file
        is missing, and raises where that is not one of nothing but fill values.
        """
        size, dtype = self.array.shape[2:], np.dtype(self.array.dtype)
        selected = _select(np.broadcast_to(np.zeros((), dtype), size), rest).shape
        out = np.empty((len(rows), *selected), dtype)
        whole = all(isinstance(part, slice) and part == slice(None) for part in rest)

        def some(places: NDArray[np.intp]) -> None:
            row = np.empty(size, dtype)
            for place in places.tolist():
                self._row(int(rows[place]), statistic, out[place] if whole else row, absent)
                if not whole:
                    out[place] = _select(row, rest)

        self.fetch(rows, statistic)
        threads = min(8, 2 * (os.cpu_count() or 1))  # more than cores: from a disk, most of them wait
        if len(rows) < _ROWS_PER_THREAD * threads:
            some(np.arange(len(rows)))
            return out
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(some, np.array_split(np.arange(len(rows)), threads)))  # raises what they raised
        return out

    def _row(self, row: int, statistic: int, out: NDArray[Any], absent: Callable[[int], None]) -> None:
        """Fill `out` with one statistic of a row."""
        block = self.array.chunks[2]
        for number, start in enumerate(range(0, len(out), block)):
            part = out[start : start + block]
            try:
                chunk = self._chunk(self._file(row, number), statistic)
            except FileNotFoundError:
                absent(row)
                chunk = None
            if chunk is None:
                part[...] = self.array.fill_value
            elif len(part) == block:
                Zstd().decode(chunk, part)
            else:  # the last chunk is filled up to the full length
                padded = np.empty((block, *part.shape[1:]), part.dtype)
                Zstd().decode(chunk, padded)
                part[...] = padded[: len(part)]

    def _file(self, row: int, block: int) -> str:
        zeros = (0,) * (self.array.ndim - 3)
        return f"{self.folder}/{self.array.metadata.encode_chunk_key((row, 0, block, *zeros))}"

    @property
    def _index_length(self) -> int:
        return 16 * self.array.shape[1] + _CHECKSUM

    def _chunk(self, shard: str, statistic: int) -> bytes | None:
        """Return a statistic's compressed chunk; None where it is all fill value."""
        if self.far is not None:
            place = self._place(shard, statistic)
            chunk = None if place is None else self.far.read(shard, *place)
        else:
            descriptor = os.open(shard, os.O_RDONLY)
            try:
                length = self._index_length
                if (start := os.fstat(descriptor).st_size - length) < 0:
                    raise ValueError(_SHORT)
                place = _place(os.pread(descriptor, length, start), statistic)
                chunk = None if place is None else os.pread(descriptor, place[1], place[0])
            finally:
                os.close(descriptor)
        return chunk if chunk is None or not self.checked else _checked(chunk)

    def _place(self, shard: str, statistic: int) -> tuple[int, int] | None:
        """Return where a statistic's chunk begins in a far shard, and its length; None where it has none."""
        assert self.far is not None
        if (start := self.far.size(shard) - self._index_length) < 0:
            raise ValueError(_SHORT)
        place = _place(self.far.read(shard, start, self._index_length), statistic)
        if place is not None and sum(place) > start:
            raise ValueError("its index leads beyond its end")
        return place


def _place(index: bytes, statistic: int) -> tuple[int, int] | None:
    """Return where a statistic's chunk begins, and its length, by a shard's index; None where it has none."""
    places = np.frombuffer(_checked(index), "<u8")
    offset, size = int(places[2 * statistic]), int(places[2 * statistic + 1])
    return None if offset == _ABSENT else (offset, size)


def write_block(
    place: Place, folder: str, array: zarr.Array[Any], row: int, start: int, values: NDArray[Any]
) -> None:
    """Write one block of a row, items from `start` on, in place of what is there; it is kept on return.

    `values` [statistic, items, ...] may end before the block does, with the array. Where nothing but the fill
    value is to be written, there is no file afterwards.
    """
    files = chunk_files(folder, array, row, start // array.chunks[2])
    if (codecs := _codecs(array)) is None:
        for file in files:  # zarr would read it first, and fail where it is damaged
            place.remove(file)
        array[row, :, start : start + values.shape[1]] = values
        place.settle(files)  # zarr renames whole files into place but leaves power loss open
        return
    (file,) = files
    if (shard := _shard(array, codecs, values)) is None:
        place.remove(file)
    else:
        place.write(file, shard)


def _shard(array: zarr.Array[Any], codecs: _Codecs, values: NDArray[Any]) -> bytes | None:
    """Encode a block of all statistics; None where all of it is fill value."""
    fill = array.fill_value
    compress = Zstd(level=codecs.level, checksum=codecs.checksum).encode
    parts, places, offset = list[bytes](), np.full((len(values), 2), _ABSENT, "<u8"), 0
    for statistic, content in enumerate(values):
        if np.isnan(content).all() if fill != fill else (content == fill).all():
            continue
        if len(content) < array.chunks[2]:
            whole = np.full(array.chunks[2:], fill, content.dtype)
            whole[: len(content)] = content
            content = whole
        chunk = compress(np.ascontiguousarray(content, content.dtype.newbyteorder("<")))
        written = [chunk, _checksum(chunk)] if codecs.checked else [chunk]
        places[statistic] = offset, sum(map(len, written))
        offset += int(places[statistic, 1])
        parts += written
    index = places.tobytes()
    return b"".join((*parts, index, _checksum(index))) if parts else None


def _codecs(array: zarr.Array[Any]) -> _Codecs | None:
    """Return how an array's shards are encoded; None where it is laid out in any other way than ours.

    Asked of the metadata as the format's specification writes them down, which are the same in every release
    of zarr; the attributes of its classes are not.
    """
    match [codec.to_dict() for codec in getattr(array.metadata, "codecs", ())]:
        case [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "codecs": [order, {"name": "zstd", "configuration": zstd}, *checksum],
                    "index_codecs": [index_order, index_checksum],
                    "index_location": "end",
                },
            }
        ] if (
            order in (_LITTLE_ENDIAN, _SINGLE_BYTES)
            and checksum in ([], [_CRC32C])
            and [index_order, index_checksum] == [_LITTLE_ENDIAN, _CRC32C]
        ):
            return _Codecs(zstd["level"], zstd.get("checksum", False), bool(checksum))
    return None


def _select(values: NDArray[Any], rest: tuple[Any, ...]) -> NDArray[Any]:
    """Select along each dimension by itself."""
    for axis in reversed(range(len(rest))):
        if not isinstance(rest[axis], slice) or rest[axis] != slice(None):
            values = values[(slice(None),) * axis + (rest[axis],)]
    return values


def _checksum(content: bytes) -> bytes:
    """Return the CRC-32C of the content, as it stands behind it."""
    return int(google_crc32c.value(content)).to_bytes(_CHECKSUM, "little")


def _checked(content: bytes) -> bytes:
    """Return the content without the CRC-32C behind it; ValueError where that is another's."""
    body = content[:-_CHECKSUM]
    if _checksum(body) != content[-_CHECKSUM:]:
        raise ValueError("its checksum is another one")
    return body
