"""Lazy variables: rows and statistics of a stacked array, read from disk only when asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from store.errors import StoreError, UnreachableError
from store.shards import ShardReader


class RowsArray(BackendArray):
    """One statistic of a stacked array at chosen rows: shape (len(rows), *dims); a row can repeat."""

    def __init__(self, array: zarr.Array[Any], rows: NDArray[np.intp], statistic: int) -> None:
        self._array, self._rows, self._statistic = array, rows, statistic
        self._shards = ShardReader.of(array)
        self.shape = (len(rows), *array.shape[2:])
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
                return self._shards.read(rows, self._statistic, rest)
            return self._array.oindex[(rows, self._statistic, *rest)]
        except UnreachableError:
            raise
        except Exception as error:  # whatever a codec makes of damaged bytes
            if len(rows) == 1:
                raise _damage(self._array, int(rows[0]), error) from error
            for row in rows:  # to name the one that is damaged
                self._rows_at(np.asarray([row]), rest)
            raise


def _damage(array: zarr.Array[Any], row: int, error: Exception) -> StoreError:
    group = zarr.open_group(array.store_path.store, path=array.path.rpartition("/")[0], mode="r")
    keys: Any = group.attrs["keys"]
    stage, key = group.attrs["stage"], keys[row].partition("~")[0]
    return StoreError(
        f"{array.store_path}: row {row}, {stage} {key}, is damaged ({error}); delete "
        f"ledger/{stage}/{key}.done.json to have it made again"
    )


def lazy_variables(array: zarr.Array[Any], rows: NDArray[np.intp]) -> dict[str, xr.Variable]:
    """Return the named variables, dims (cell, *dims), that `array` stacks, without reading any data."""
    dims = ("cell", *(array.metadata.dimension_names or ())[2:])  # type: ignore[union-attr]
    described: Any = array.attrs["variables"]
    return {
        entry["name"]: xr.Variable(
            dims,
            indexing.LazilyIndexedArray(RowsArray(array, rows, statistic)),
            attrs={"units": entry["units"], "long_name": entry["long_name"]},
        )
        for statistic, entry in enumerate(described)
    }
