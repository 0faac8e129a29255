"""How a family lies on disk: one Zarr group, variables of equal shape and type stacked in one array.

Shapes: (row, statistic, *dims), a row per stage key. A shard holds one row's block of every statistic
of its array and is written once, by one writer; an inner chunk holds one statistic of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
import zarr
from attrs import frozen
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from store.arrays.families import described, family_name, zarr_text
from store.arrays.schema import Coordinate, DType, Family, Variable
from store.backend.location import Place
from store.backend.records import Json, create_json, parse_json, plain, read_file
from store.errors import MEND, DamagedError, StoreError
from store.lease.claims import Claim
from store.ledger.version import LAYOUT, mark_new

BLOCK_BYTES = 8 * 2**20
# A guess, for strings have no fixed size; only the block size depends on it.
STRING_BYTES = 64
FILL: dict[DType, Any] = {"float32": float("nan"), "int32": -1, "int16": -1, "bool": False, "string": ""}

# Separated by dots, the chunks of an array share one folder.
KEYS: Any = {"name": "default", "separator": "."}
# The checksum stands last, so that it covers the bytes on disk.
CODECS = (ZstdCodec(level=3), Crc32cCodec())


@frozen
class Stack:
    """Variables of the same dims and dtype, which share one array."""

    dims: tuple[str, ...]
    dtype: DType
    variables: tuple[Variable, ...]

    @property
    def name(self) -> str:
        """The array's name, which no variable or coordinate can have."""
        return "-".join((self.dtype, *self.dims))


def stacks(family: Family) -> list[Stack]:
    """Return the arrays of a family, in the order in which its variables first need them."""
    grouped: dict[tuple[tuple[str, ...], DType], list[Variable]] = {}
    for variable in family.variables:
        grouped.setdefault((variable.dims, variable.dtype), []).append(variable)
    return [Stack(dims, dtype, tuple(variables)) for (dims, dtype), variables in grouped.items()]


def block_size(family: Family) -> int:
    """Return the items per block: the most that keep all arrays' blocks within 8 MiB, at least 1."""
    per_item = sum(
        _item_bytes(v.dtype) * math.prod(family.sizes[d] for d in v.dims[1:]) for v in family.variables
    )
    return max(1, min(family.size, BLOCK_BYTES // per_item))


def group_name(stage: str, family_key: str) -> str:
    """Return the folder of a family's Zarr group in the store."""
    return f"results.zarr/{plain(stage)}/{plain(family_key)}"


def allocate(place: Place, family: Family, keys: Iterable[str], claim: Claim | None = None) -> dict[str, int]:
    """Give every new key the next free row, making the group when missing; return all rows by key.

    Rows are never reordered or reused, and growing touches no data. Safe against other processes. Under a
    claim whose former owner may still write, the keys get new rows, and their old ones lose their names.
    """
    keys, folder = list(dict.fromkeys(keys)), group_name(family.stage, family.key)
    while True:
        with place.swapping():
            if claim is not None:
                claim.check()
            group, text = _opened(place, folder, family)
            known = {key: row for row, key in enumerate(_known(group, f"{place}/{folder}"))}
            if claim is not None and claim.fenced:
                known = {f"{key}~{row}" if key in keys else key: row for key, row in known.items()}
            new = [key for key in keys if key not in known]
            known |= {key: row for row, key in enumerate(new, start=len(known))}
            if not new:
                return known
            for stack in stacks(family):
                _grow(place, f"{folder}/{stack.name}/zarr.json", len(known))
            # Rows exist before they are named: a reader that knows a key finds its row.
            group["attributes"]["keys"] = list(known)
            if place.swap(f"{folder}/zarr.json", text, zarr_text(group)):
                return known


def _opened(place: Place, folder: str, family: Family) -> tuple[Json, bytes]:
    """Return a group's metadata, and their text; the group is made where it is missing."""
    name = f"{folder}/zarr.json"
    try:
        text = read_file(place, name)
        if "keys" in (group := parse_json(text, f"{place}/{name}"))["attributes"]:
            return group, text
    except FileNotFoundError:
        text = b""
    except (KeyError, TypeError) as error:
        raise _torn(f"{place}/{name}", error) from error
    mark_new(place)
    made = _made(folder, family)
    group_files = {
        path.removeprefix(f"{folder}/"): text for path, text in made.items() if path.startswith(f"{folder}/")
    }
    values = {coordinate.name: list(coordinate.values) for coordinate in family.coordinates}
    create_json(place, family_name(family.stage, family.key), described(group_files, values))
    last = made.pop(name)
    # All who make it make the same, so it is as well if some of it is there.
    for path, content in made.items():
        place.create(path, content)
    if text:  # left half made by an earlier version of this program
        place.swap(name, text, last)
    else:
        place.create(name, last)
    text = place.read(name)
    return parse_json(text, f"{place}/{name}"), text


def _torn(path: str, error: Exception) -> DamagedError:
    return DamagedError(f"{path}: its metadata cannot be read ({error!r}); {MEND}")


def _made(folder: str, family: Family) -> dict[str, bytes]:
    """Return the files of an empty group, and of the groups above it, by their names in the store."""
    files: dict[str, Any] = {}
    group = zarr.open_group(MemoryStore(files), mode="a", zarr_format=3)
    top, *names = folder.split("/")
    for name in names:
        group = group.require_group(name)
    _create(group, family)
    return {f"{top}/{name}": content.to_bytes() for name, content in files.items()}


def _grow(place: Place, name: str, rows: int) -> None:
    """Make an array at least so many rows long, which touches no data."""
    while True:
        try:
            text = read_file(place, name)
            array = parse_json(text, f"{place}/{name}")
            if array["shape"][0] >= rows:
                return
            array["shape"][0] = rows
        except FileNotFoundError as error:
            raise DamagedError(f"{place}/{name}: missing; {MEND}") from error
        except (KeyError, TypeError, IndexError) as error:
            raise _torn(f"{place}/{name}", error) from error
        if place.swap(name, text, zarr_text(array)):
            return


def open_array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """Return an array of the group; StoreError when it is missing."""
    array = group.get(name)
    if not isinstance(array, zarr.Array):
        raise StoreError(f"{group.store_path}: no array {name!r}")
    return array


def array_to_write(place: Place, folder: str, name: str) -> zarr.Array[Any]:
    """Return the array of a group, to write to; it is opened once for each state of its metadata."""
    try:
        metadata = read_file(place, f"{folder}/{name}/zarr.json")
        return _array_to_write(place, folder, name, metadata)
    except FileNotFoundError as error:
        raise DamagedError(f"{place}/{folder}: no array {name!r}; {MEND}") from error
    except (KeyError, TypeError, ValueError) as error:  # what zarr finds wrong with metadata
        raise _torn(f"{place}/{folder}/{name}", error) from error


@lru_cache(maxsize=64)
def _array_to_write(place: Place, folder: str, name: str, _metadata: bytes) -> zarr.Array[Any]:
    return open_array(place.group(folder, "r+"), name)


def chunk_files(folder: str, array: zarr.Array[Any], row: int, block: int) -> list[str]:
    """Return the files that hold one block of a row (those of blocks all fill value do not exist)."""
    statistics = 1 if array.shards else array.shape[1]
    rest = (0,) * (array.ndim - 3)
    names = [array.metadata.encode_chunk_key((row, s, block, *rest)) for s in range(statistics)]
    return [f"{folder}/{name}" for name in names]


def row_files(place: Place, folder: str, array: zarr.Array[Any], row: int) -> list[str]:
    """Return the files of all of a row's blocks that exist, empty ones and what is no file left out."""
    blocks = math.ceil(array.shape[2] / array.chunks[2])
    files = [file for block in range(blocks) for file in chunk_files(folder, array, row, block)]
    return [file for file, size in zip(files, place.file_sizes(files), strict=True) if size]


def row_content(place: Place, files: Iterable[str]) -> str:
    """Return the BLAKE2b (32 hex digits) of a row's files and of their places in it, whichever row it is.

    Each chunk's own checksum holds for its bytes alone, so that one of another row would pass.
    """
    digest = blake2b(digest_size=16)
    for file in sorted(files):
        array, _, chunk = file.rpartition("/")
        content = place.read(file)
        name = f"{array.rpartition('/')[2]}/{chunk.split('.', 2)[2]}"  # c.ROW.STATISTIC.BLOCK…
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _known(group: Json, where: str) -> list[str]:
    keys = group["attributes"]["keys"]
    if not isinstance(keys, list):
        raise StoreError(f"{where}: attribute 'keys': expected a list of stage keys")
    return [str(key) for key in keys]


def _item_bytes(dtype: DType) -> int:
    return STRING_BYTES if dtype == "string" else np.dtype(dtype).itemsize


def _create(group: zarr.Group, family: Family) -> None:
    for coordinate in family.coordinates:
        _create_coordinate(group, coordinate)
    for stack in stacks(family):
        _create_stack(group, family, stack)
    block = block_size(family)
    group.attrs.update(
        {"stage": family.stage, "label": family.label, "block": block, "layout": LAYOUT, "keys": []}
    )


def _create_coordinate(group: zarr.Group, coordinate: Coordinate) -> None:
    values = np.asarray(coordinate.values, dtype=object if isinstance(coordinate.values[0], str) else None)
    array = create_array(
        group,
        coordinate.name,
        shape=values.shape,
        chunks=values.shape,
        dtype="string" if values.dtype == object else values.dtype,
        dimension_names=(coordinate.dim,),
        attributes={"units": coordinate.units, "long_name": coordinate.long_name},
        config={"write_empty_chunks": True},  # without its chunk, a coordinate is damaged
    )
    array[:] = values


def _create_stack(group: zarr.Group, family: Family, stack: Stack) -> None:
    rest = tuple(family.sizes[dim] for dim in stack.dims[1:])
    count, block = len(stack.variables), block_size(family)
    described = [{"name": v.name, "units": v.units, "long_name": v.long_name} for v in stack.variables]
    attributes: dict[str, Any] = {"variables": described}
    if stack.dtype.startswith("int"):
        # Other readers of this Zarr would otherwise take the fill value for a number.
        attributes["_FillValue"] = FILL[stack.dtype]
    create_array(
        group,
        stack.name,
        shape=(0, count, family.size, *rest),
        chunks=(1, 1, block, *rest),
        # zarr cannot shard strings of variable length.
        shards=None if stack.dtype == "string" else (1, count, block, *rest),
        dtype=stack.dtype,
        fill_value=FILL[stack.dtype],
        # The statistics of two arrays differ, and so must the names of the dimensions.
        dimension_names=("row", f"statistic-{stack.name}", *stack.dims),
        attributes=attributes,
    )


def create_array(group: zarr.Group, name: str, **options: Any) -> zarr.Array[Any]:
    """Make an array of results in a group, as the present layout encodes them."""
    return group.create_array(
        name,
        compressors=CODECS,
        chunk_key_encoding=KEYS,
        overwrite=True,
        **options,
    )
