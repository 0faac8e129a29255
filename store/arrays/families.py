"""The record of a family: what its group of arrays is made of, but for the rows.

`families/STAGE/KEY.json` holds the metadata of the group and of its arrays as they were first made, and the
values of the coordinates. Readers take them from there, where a checksum covers all. The group holds them
once more, for other readers of Zarr; `store.upkeep.verify` compares the two, and
`store.upkeep.mend` makes either from the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from attrs import frozen
from numpy.typing import NDArray
from zarr.storage import MemoryStore, StorePath

from store.backend.location import Place
from store.backend.records import Json, parse_json, plain, read_file, read_json
from store.errors import MEND, DamagedError, UnreachableError
from store.ledger.row_keys import GROUP


@frozen
class FamilyRecord:
    """The metadata of a group and its arrays, by their names in its folder, and the coordinates' values."""

    metadata: dict[str, Json]
    coordinates: dict[str, list[Any]]

    @property
    def attributes(self) -> Json:
        """The group's attributes, without keys."""
        group_attributes: Json = self.metadata[GROUP]["attributes"]
        return group_attributes

    @property
    def stacks(self) -> list[str]:
        """The names of the arrays that hold results, in order."""
        arrays = {
            name.removesuffix(f"/{GROUP}"): metadata
            for name, metadata in self.metadata.items()
            if name != GROUP
        }
        return [name for name, metadata in arrays.items() if "variables" in metadata["attributes"]]

    def array(self, folder: StorePath, name: str, rows: int) -> zarr.Array[Any]:
        """Return an array of the group as it is with so many rows, whatever its metadata in the store are."""
        return zarr.Array.from_dict(folder / name, with_rows(self.metadata[f"{name}/{GROUP}"], rows))

    def values(self, name: str) -> NDArray[Any]:
        """Return a coordinate's values; texts as objects."""
        kind = self.metadata[f"{name}/{GROUP}"]["data_type"]
        return np.asarray(self.coordinates[name], object if kind == "string" else kind)

    def chunks(self, name: str) -> dict[str, bytes]:
        """Return the chunk files of a coordinate, by their names in the group's folder."""
        files: dict[str, Any] = {}
        metadata = self.metadata[f"{name}/{GROUP}"]
        with zarr.config.set({"array.write_empty_chunks": True}):
            array = zarr.Array.from_dict(StorePath(MemoryStore(files), name), metadata)
            array[:] = self.values(name)
        return {file: content.to_bytes() for file, content in files.items()}


def family_name(stage: str, key: str) -> str:
    """Return the file of a family's record in the store."""
    return f"families/{plain(stage)}/{plain(key)}.json"


def read_family(place: Place, stage: str, key: str) -> FamilyRecord:
    """Return a family's record; FileNotFoundError where it has none, DamagedError for a torn one."""
    record = read_json(place, family_name(stage, key))
    return FamilyRecord(record["metadata"], record["coordinates"])


def described(files: Mapping[str, bytes], coordinates: Mapping[str, list[Any]]) -> Json:
    """Return the content of a family's record, from the files of its group before there is any row."""
    metadata = {name: json.loads(text) for name, text in files.items() if name.endswith(GROUP)}
    return {"metadata": metadata, "coordinates": dict(coordinates)}


def described_by_group(place: Place, folder: str) -> Json:
    """Return the content of a family's record, from its group; DamagedError where that is torn."""
    path = f"{place}/{folder}"
    try:
        metadata = {GROUP: with_keys(parse_json(read_file(place, f"{folder}/{GROUP}"), path), [])}
        coordinates = {}
        for name, array in sorted(place.group(folder).arrays()):
            array_metadata = parse_json(read_file(place, f"{folder}/{name}/{GROUP}"), f"{path}/{name}")
            stacked = "variables" in array_metadata["attributes"]
            metadata[f"{name}/{GROUP}"] = with_rows(array_metadata, 0) if stacked else array_metadata
            if not stacked:
                coordinates[name] = read_coordinate(array, path).tolist()
    except (DamagedError, UnreachableError):
        raise
    except Exception as error:  # missing, torn or changed metadata, in zarr's many words
        raise DamagedError(f"{path}: its metadata cannot be read ({error!r}); {MEND}") from error
    return {"metadata": metadata, "coordinates": coordinates}


def read_coordinate(array: zarr.Array[Any], path: str) -> NDArray[Any]:
    """Return the values of a coordinate as the group holds them, texts as objects; DamagedError for none."""
    name = array.path.rpartition("/")[2]
    try:
        values = np.asarray(array[:], array.dtype if array.dtype.kind in "bif" else object)
        lost = array.nchunks_initialized == 0
    except Exception as error:  # whatever a codec makes of damaged bytes
        raise DamagedError(f"{path}/{name}: the coordinate cannot be read ({error}); {MEND}") from error
    if lost:
        raise DamagedError(f"{path}/{name}: the coordinate's values are missing; {MEND}")
    return values


def zarr_text(metadata: Json) -> bytes:
    """Return metadata as zarr writes them."""
    return json.dumps(metadata, indent=2).encode()


def with_rows(metadata: Json, rows: int) -> Json:
    """Return an array's metadata with another number of rows."""
    return {**metadata, "shape": [rows, *metadata["shape"][1:]]}


def with_keys(metadata: Json, keys: list[str]) -> Json:
    """Return a group's metadata with other stage keys, one for each row."""
    return {**metadata, "attributes": {**metadata["attributes"], "keys": keys}}
