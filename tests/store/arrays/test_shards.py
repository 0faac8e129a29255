"""Which arrays the store reads and writes by itself, and which it leaves to zarr."""

from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec, GzipCodec, ShardingCodec, ZstdCodec

from store.arrays import layout
from store.arrays.shards import ShardReader

VALUES = np.arange(48, dtype="float32").reshape(3, 2, 8)
SHARDS = {"shape": (3, 2, 8), "chunks": (1, 1, 4), "shards": (1, 2, 4), "dtype": "float32"}


@pytest.fixture
def group(tmp_path):
    return zarr.open_group(tmp_path, mode="a", zarr_format=3)


def test_our_own_layout_is_read_here(group):
    array = layout.create_array(group, "a", **SHARDS)
    array[:] = VALUES
    reader = ShardReader.of(array)
    assert reader is not None and reader.checked
    np.testing.assert_array_equal(reader.read(np.array([2, 0]), 1, (slice(None),)), VALUES[[2, 0], 1])


def sharding(*codecs: Any, where: str = "end") -> Any:
    return ShardingCodec(chunk_shape=(1, 1, 4), codecs=list(codecs), index_location=where)


@pytest.mark.parametrize(
    "other",
    [
        {"serializer": sharding(BytesCodec(endian="big"), ZstdCodec())},
        {"serializer": sharding(BytesCodec(), ZstdCodec(), where="start")},
        {"serializer": sharding(BytesCodec(), GzipCodec())},
        {"serializer": sharding(BytesCodec())},
        {"compressors": [ZstdCodec()]},
    ],
    ids=["big-endian", "index-first", "gzip", "plain", "unsharded"],
)
def test_other_layouts_are_left_to_zarr(group, other):
    options = {"compressors": None} | other
    array = group.create_array("a", shape=(3, 2, 8), chunks=(1, 2, 4), dtype="float32", **options)
    array[:] = VALUES
    assert ShardReader.of(array) is None
