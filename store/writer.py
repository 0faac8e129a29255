"""Writing: a row per stage key, streamed in blocks, resumable after a kill."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import ArrayLike, NDArray

from store.arrays.layout import (
    Stack,
    allocate,
    array_to_write,
    block_size,
    group_name,
    row_content,
    row_files,
    stacks,
)
from store.arrays.schema import Family, Variable
from store.arrays.shards import write_block
from store.backend.locate import place_of
from store.backend.location import Place, Root
from store.backend.records import is_half, read_json, write_json
from store.errors import DamagedError, StoreError
from store.lease.claims import Claim
from store.ledger.ledger import progress_name


class StoreWriter:
    """Writes the arrays of stages under the store at `root`, which is made when missing."""

    def __init__(self, root: Root) -> None:
        self.place = place_of(root)

    def allocate(self, family: Family, keys: Iterable[str]) -> dict[str, int]:
        """Give every key a row in the family; repeats are harmless.

        Asking for all cells of an experiment at once grows the arrays once instead of once per cell.

        Args:
            family: the layout that the rows have.
            keys: stage keys.

        Returns:
            the rows by key.
        """
        wanted = list(keys)
        rows = allocate(self.place, family, wanted)
        return {key: rows[key] for key in wanted}

    def cell(
        self, family: Family, key: str, *, resume: bool = True, claim: Claim | None = None
    ) -> CellWriter:
        """Return the writer of one stage key, its row allocated if need be; a key takes one at a time.

        Args:
            family: the layout of the cell's values.
            key: the stage key.
            resume: False starts over: for results that cannot be continued where a killed run stopped.
            claim: once it is lost nothing is written (LostClaimError).
        """
        row = allocate(self.place, family, [key], claim)[key]
        return CellWriter(self.place, family, key, row, resume=resume, claim=claim)


class CellWriter:
    """Takes one stage key's variables in streaming order; holds one block of them in memory.

    As a context manager it closes at the end; after an exception it drops the unfinished block instead.
    """

    start: int
    """Leading items along the streaming dimension that an earlier, killed writer left safely on disk.

    A multiple of the block size, or the full size; the first batch to append is the one from here on.
    """

    def __init__(
        self,
        place: Place,
        family: Family,
        key: str,
        row: int,
        *,
        resume: bool = True,
        claim: Claim | None = None,
    ) -> None:
        self.family, self.key, self._row = family, key, row
        self._claim = claim
        self._place, self._folder = place, group_name(family.stage, family.key)
        self._block = block_size(family)
        self._stacks = stacks(family)
        self._arrays = [array_to_write(place, self._folder, stack.name) for stack in self._stacks]
        self._buffers = [
            np.empty(
                (len(s.variables), self._block, *a.shape[3:]), object if s.dtype == "string" else s.dtype
            )
            for s, a in zip(self._stacks, self._arrays, strict=True)
        ]
        self._filled = 0
        self._closed = False
        self.start = self._items = self._resume() if resume else 0
        self._note_progress()

    def append(self, batch: Mapping[str, ArrayLike]) -> None:
        """Take the next n items of every variable. Nothing is taken where that fails.

        Args:
            batch: variable → values of shape (n, *dims[1:]) in the family's sizes.

        Raises:
            StoreError: when a variable is missing, unknown or of another shape, when a value does not fit the
                variable's type, or when more items come than the family has.
        """
        if self._closed:
            raise StoreError(f"{self._name}: the writer is closed")
        values, count = self._checked(batch)
        taken = 0
        while taken < count:
            n = min(count - taken, self._block - self._filled)
            for stack, buffer in zip(self._stacks, self._buffers, strict=True):
                for s, variable in enumerate(stack.variables):
                    buffer[s, self._filled : self._filled + n] = values[variable.name][taken : taken + n]
            self._filled += n
            taken += n
            if self._filled == self._block or self._items + self._filled == self.family.size:
                self._flush()

    @property
    def placement(self) -> dict[str, Any]:
        """What a done record says of its arrays: family, row of this writer, number and hash of its files.

        By the row a reader meets this writer's values, whoever else has written for the same key. Blocks that
        hold nothing but fill values have no file, so the number of files tells those from lost ones. The hash
        tells this row's files from those of another.
        """
        files = [
            file
            for stack, array in zip(self._stacks, self._arrays, strict=True)
            for file in row_files(self._place, f"{self._folder}/{stack.name}", array, self._row)
        ]
        content = row_content(self._place, files)
        return {"family": self.family.key, "row": self._row, "chunks": len(files), "content": content}

    def close(self) -> None:
        """Finish the cell; StoreError when items are missing. Its ledger record makes it visible, later."""
        if self._closed:
            return
        self._release()
        if self._items < self.family.size:
            raise StoreError(f"{self._name}: expected {self.family.size} items, found {self._items} written")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._release()

    @property
    def _name(self) -> str:
        return f"{self._place}/{self._folder}: {self.family.stage} {self.key}"

    def _release(self) -> None:
        self._closed = True
        self._buffers = []

    def _resume(self) -> int:
        """Return the items an earlier writer finished, sweeping the files that its kill left half written."""
        try:
            progress = read_json(self._place, progress_name(self.key))
        except (FileNotFoundError, DamagedError):  # or written before notes had checksums: begin anew
            return 0
        block = f"c.{self._row}."
        for folder in (f"{self._folder}/{stack.name}" for stack in self._stacks):
            for name in self._place.names(folder):
                if is_half(folder, name) and name.startswith((block, f".{block}")):
                    self._place.remove(f"{folder}/{name}")
        same = (progress.get("family"), progress.get("row", self._row)) == (self.family.key, self._row)
        return int(progress["items"]) if same else 0

    def _note_progress(self) -> None:
        content = {"family": self.family.key, "row": self._row, "items": self._items}
        write_json(self._place, progress_name(self.key), content)

    def _flush(self) -> None:
        if self._claim is not None:
            self._claim.check()

        def write(stack: Stack, array: zarr.Array[Any], buffer: NDArray[Any]) -> None:
            block = buffer[:, : self._filled]
            write_block(self._place, f"{self._folder}/{stack.name}", array, self._row, self._items, block)

        with ThreadPoolExecutor() as pool:  # one array is compressed while the disk keeps another
            list(pool.map(write, self._stacks, self._arrays, self._buffers))  # raises what they raised
        self._items, self._filled = self._items + self._filled, 0
        self._note_progress()

    def _checked(self, batch: Mapping[str, ArrayLike]) -> tuple[dict[str, NDArray[Any]], int]:
        expected = {variable.name for variable in self.family.variables}
        if batch.keys() != expected:
            missing, unknown = sorted(expected - batch.keys()), sorted(batch.keys() - expected)
            raise StoreError(f"{self._name}: batch lacks {missing}, has unknown {unknown}")
        values = {v.name: self._cast(v, batch[v.name]) for v in self.family.variables}
        counts = {name: len(array) for name, array in values.items()}
        count = next(iter(counts.values()))
        if set(counts.values()) != {count}:
            raise StoreError(f"{self._name}: variables of one batch differ in length: {counts}")
        room = self.family.size - self._items - self._filled
        if count > room:
            raise StoreError(f"{self._name}: {count} items appended, but only {room} are left to write")
        return values, count

    def _cast(self, variable: Variable, value: ArrayLike) -> NDArray[Any]:
        where = f"{self._name}: variable {variable.name!r}"
        array = np.asarray(value, dtype=object if variable.dtype == "string" else None)
        rest = tuple(self.family.sizes[dim] for dim in variable.dims[1:])
        if array.ndim == 0 or array.shape[1:] != rest:
            raise StoreError(f"{where}: expected shape (n, {', '.join(map(str, rest))}), found {array.shape}")
        if variable.dtype == "string":
            if not all(isinstance(text, str) for text in array.flat):
                raise StoreError(f"{where}: expected strings only")
            return array
        if not np.can_cast(array.dtype, variable.dtype, "same_kind"):
            raise StoreError(f"{where}: expected {variable.dtype}, found {array.dtype}")
        if array.dtype.kind in "iu" and np.dtype(variable.dtype).kind == "i" and array.size:
            limits = np.iinfo(variable.dtype)
            if array.min() < limits.min or array.max() > limits.max:
                raise StoreError(f"{where}: a value does not fit {variable.dtype}")
        return array
