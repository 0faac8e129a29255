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

from store.arrays.layout import chunk_files, row_files
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

    def check(self, row: int) -> None:
        """Raise ValueError where a row has fewer files than its record says."""
        files = sum(
            len(row_files(self.place, f"{self.folder}/{name}", array, row))
            for name, array in self.arrays.items()
        )
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
        self._shards = ShardReader.of(array)
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
            if self._shards is not None:
                return self._shards.read(rows, self._statistic, rest, self._info.check)
            for row in rows.tolist():
                self._info.check_statistic(self._array, row, self._statistic)
            # For integers zarr 3.1.0 gives axes of another order: slices of one, whose axes are dropped here.
            asked = [(k, isinstance(k, int | np.integer)) for k in (self._statistic, *rest)]
            values = self._array.oindex[(rows, *(slice(k, k + 1) if one else k for k, one in asked))]
            return np.asarray(values)[(slice(None), *(0 if one else slice(None) for _, one in asked))]
        except (UnreachableError, PermissionError):
            raise
        except Exception as error:  # whatever a codec makes of damaged bytes
            if len(rows) == 1:
                raise self._info.damage(self._array, int(rows[0]), error) from error
            for row in rows:  # to name the one that is damaged
                self._rows_at(np.asarray([row]), rest)
            raise


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
