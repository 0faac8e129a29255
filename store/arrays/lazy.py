"""Lazy variables: rows and statistics of a stacked array, read from disk only when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
import zarr
from attrs import frozen
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing
from zarr.core.buffer import cpu
from zarr.storage import MemoryStore, StorePath

from store.arrays.far_files import WHOLE, FarFiles
from store.arrays.layout import chunk_files
from store.arrays.shards import ShardReader
from store.backend.location import Place
from store.errors import MEND, DamagedError, UnreachableError


@frozen(eq=False)
class LazyRows:
    """Rows of one group, and what the done records say of them."""

    place: Place
    folder: str
    arrays: Mapping[str, zarr.Array[Any]]  # all that hold results
    chunks: Mapping[int, int]  # by row: how many files of chunks it has, where that is recorded
    names: Mapping[int, str]  # by row: its stage key and cell
    far: FarFiles | None = None  # of a place that is far away

    def check(self, row: int) -> None:
        """Raise ValueError where a row has fewer files than its record says."""
        wanted = [
            file
            for name, array in self.arrays.items()
            for block in range(-(-array.shape[2] // array.chunks[2]))
            for file in chunk_files(f"{self.folder}/{name}", array, row, block)
        ]
        sizes = self.place.file_sizes(wanted) if self.far is None else self.far.sizes(wanted)
        files = sum(bool(size) for size in sizes)
        if files < (expected := self.chunks.get(row, 0)):
            raise ValueError(f"{files} chunk files, expected {expected}")

    def check_statistic(self, array: zarr.Array[Any], row: int, statistic: int) -> None:
        """Raise ValueError where a statistic's file is missing or empty, which zarr takes for fill values."""
        folder = f"{self.folder}/{name_of(array)}"
        blocks = range(-(-array.shape[2] // array.chunks[2]))
        which = 0 if array.shards else statistic
        sizes = self.place.file_sizes([chunk_files(folder, array, row, block)[which] for block in blocks])
        if 0 in sizes:
            raise ValueError("an empty file")
        if None in sizes:
            self.check(row)

    def damage(self, array: zarr.Array[Any], row: int, error: Exception) -> DamagedError:
        """Return the error that names an array's damaged row."""
        where = f"{self.place}/{self.folder}/{name_of(array)}"
        return DamagedError(f"{where}: row {row}, {self.names[row]}, is damaged ({error}); {MEND}")


def name_of(array: zarr.Array[Any]) -> str:
    """Return an array's name in its group."""
    return array.path.rpartition("/")[2]


class RowsArray(BackendArray):
    """One statistic of a stacked array at chosen rows: shape (len(chosen), *dims); a row can repeat."""

    def __init__(
        self, rows: LazyRows, array: zarr.Array[Any], chosen: NDArray[np.intp], statistic: int
    ) -> None:
        self._info, self._array, self._rows, self._statistic = rows, array, chosen, statistic
        self._shards = ShardReader.of(array, f"{rows.folder}/{name_of(array)}", rows.far)
        self._fetched = set[int]()
        self.shape = (len(chosen), *array.shape[2:])
        self.dtype = np.dtype(array.dtype) if array.dtype.kind in "bif" else np.dtype(object)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        rows = np.asarray(self._rows[key[0]])
        # Cells that share a stage share its row, which is then decoded once.
        unique, back = np.unique(rows, return_inverse=True)
        values = np.asarray(self._rows_at(unique, key[1:]), dtype=self.dtype)
        return values[back.reshape(rows.shape)]

    def _rows_at(self, rows: NDArray[np.intp], rest: tuple[Any, ...]) -> Any:
        try:
            if (far := self._info.far) is not None:
                self._fetch(far, rows)
            if self._shards is not None:
                return self._shards.read(rows, self._statistic, rest, self._info.check)
            array = self._array if far is None or self._array.shards else self._near(far, rows)
            for row in rows.tolist() if array is self._array else ():
                self._info.check_statistic(self._array, row, self._statistic)
            # For integers zarr 3.1.0 gives axes of another order: slices of one, whose axes are dropped here.
            asked = [(k, isinstance(k, int | np.integer)) for k in (self._statistic, *rest)]
            values = array.oindex[(rows, *(slice(k, k + 1) if one else k for k, one in asked))]
            return np.asarray(values)[(slice(None), *(0 if one else slice(None) for _, one in asked))]
        except (UnreachableError, PermissionError):
            raise
        except Exception as error:  # whatever a codec makes of damaged bytes
            if len(rows) == 1:
                raise self._info.damage(self._array, int(rows[0]), error) from error
            for row in rows:  # to name the one that is damaged
                self._rows_at(np.asarray([row]), rest)
            raise

    def _fetch(self, far: FarFiles, rows: NDArray[np.intp]) -> None:
        """Fetch rows of a place far away; more than them, once it is seen that they are read one by one."""
        if not (due := set(rows.tolist()) - self._fetched):
            return
        if self._fetched:
            others = np.unique(self._rows[~np.isin(self._rows, [*due, *self._fetched])])
            room = far.room() // max(1, len(self._files(min(due))))
            due |= set(np.roll(others, -int(np.searchsorted(others, max(due))))[:room].tolist())
        chosen = np.asarray(sorted(due), np.intp)
        if self._shards is not None:
            self._shards.fetch(chosen, self._statistic)
        elif not self._array.shards:
            far.fetch_ends([file for row in chosen.tolist() for file in self._files(row)], WHOLE)
        self._fetched |= due

    def _files(self, row: int) -> list[str]:
        """Return the files that hold the statistic of a row."""
        blocks = range(-(-self._array.shape[2] // self._array.chunks[2]))
        folder, which = (
            f"{self._info.folder}/{name_of(self._array)}",
            0 if self._array.shards else self._statistic,
        )
        return [chunk_files(folder, self._array, row, block)[which] for block in blocks]

    def _near(self, far: FarFiles, rows: NDArray[np.intp]) -> zarr.Array[Any]:
        """Return the array with the fetched files of some rows in memory; ValueError where one is damaged."""
        files: dict[str, Any] = {}
        for row in rows.tolist():
            for file in self._files(row):
                try:
                    size = far.size(file)
                except FileNotFoundError:
                    self._info.check(row)
                    continue
                if not size:
                    raise ValueError("an empty file")
                name = f"{self._array.path}/{file.rpartition('/')[2]}"
                files[name] = cpu.Buffer.from_bytes(far.read(file, 0, size))
        return zarr.Array.from_dict(
            StorePath(MemoryStore(files), self._array.path), self._array.metadata.to_dict()
        )


def lazy_variables(
    rows: LazyRows, array: zarr.Array[Any], chosen: NDArray[np.intp]
) -> dict[str, xr.Variable]:
    """Return the named variables, dims (cell, *dims), that `array` stacks, without reading any data."""
    dims = ("cell", *(array.metadata.dimension_names or ())[2:])  # type: ignore[union-attr]
    chunks = dict(zip(dims, (1, *array.chunks[2:]), strict=True))
    described: Any = array.attrs["variables"]
    return {
        entry["name"]: xr.Variable(
            dims,
            indexing.LazilyIndexedArray(RowsArray(rows, array, chosen, statistic)),
            attrs={"units": entry["units"], "long_name": entry["long_name"]},
            encoding={"preferred_chunks": chunks},
        )
        for statistic, entry in enumerate(described)
    }
