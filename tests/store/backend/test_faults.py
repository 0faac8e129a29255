"""A full disk, a read-only file system and flipped bits are named, and spoil nothing else."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from pathlib import Path

import numpy as np
import pytest
from facts import facts
from written_cells import assert_reads, listed, values, write

from engine.errors import told
from store import Ledger, StoreError, open_store
from store.backend.locate import place_of
from store.backend.records import read_json, write_json


def mount(*arguments: object) -> None:
    if subprocess.run(["mount", *map(str, arguments)], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 1 MB, on which about seven of these cells have room."""
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path], capture_output=True
    ).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_full_disk_stops_writing_and_spoils_nothing(small_disk: Path) -> None:
    """Cells are written until there is no room; with room again the next call goes on."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(200_000))
    listed(small_disk, 30)
    written = 0
    with pytest.raises(OSError) as error:
        for written in range(30):
            write(small_disk, f"k{written}", written)
    assert error.value.errno == errno.ENOSPC
    assert 0 < written < 30
    assert_reads(small_disk, range(written))
    assert not list(small_disk.glob("claims/*/*/*"))
    ballast.unlink()
    write(small_disk, f"k{written}", written)
    assert_reads(small_disk, range(written + 1))


def test_a_write_that_fails_names_the_file_that_was_meant(tmp_path: Path) -> None:
    """The system names none where a write fails, and the one beside it where that cannot be made."""
    place = place_of(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError) as error:
            place.write("page.html", bytes(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert told(error.value).startswith(f"{tmp_path}/page.html: File too large; ")
    with pytest.raises(OSError) as error:
        place.write("n" * 250, b"")  # the name beside it is longer
    assert error.value.filename == f"{tmp_path}/{'n' * 250}"
    assert not list(tmp_path.iterdir())


def test_a_store_on_a_read_only_file_system_can_be_read(tmp_path: Path) -> None:
    root = tmp_path / "store"
    listed(root, 1)
    write(root, "k0", 0)
    bind = subprocess.run(["mount", "--bind", root, root], capture_output=True)
    if (
        bind.returncode
        or subprocess.run(["mount", "-o", "remount,ro,bind", root], capture_output=True).returncode
    ):
        pytest.skip("mounting is not permitted here")
    try:
        assert_reads(root, range(1))
        with pytest.raises(OSError, match="Read-only file system"):
            write(root, "k1", 1)
    finally:
        subprocess.run(["umount", "-l", root], check=True)


@pytest.mark.parametrize("array", ["float32-example-layer", "string-example"])
def test_a_flipped_bit_is_found_and_the_row_named(tmp_path: Path, array: str) -> None:
    """Somewhere in the middle of each chunk of one row: checksums find what decompression would let pass."""
    listed(tmp_path, 2)
    write(tmp_path, "k0", 0)
    write(tmp_path, "k1", 1)
    (chunk,) = tmp_path.glob(f"results.zarr/probe/*/{array}/c.1.*")
    content = bytearray(chunk.read_bytes())
    content[len(content) // 3] ^= 1
    chunk.write_bytes(content)
    ds = open_store(tmp_path)["study/probe"].ds
    name = "entropy" if array.startswith("float32") else "answer"
    np.testing.assert_array_equal(ds[name].sel(seed=0), values(0)[name])
    message = rf"{array}: row 1, probe k1 \(seed=1\), is damaged \(.*checksum.*`engine verify STORE --fix`"
    with pytest.raises(StoreError, match=message):
        ds[name].values  # noqa: B018
    (tmp_path / "ledger/probe/k1.done.json").unlink()
    write(tmp_path, "k1", 1)
    assert_reads(tmp_path, range(2))


def test_a_layout_from_the_future_is_refused(tmp_path: Path) -> None:
    listed(tmp_path, 1)
    write(tmp_path, "k0", 0)
    (file,) = (path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("families/probe/*.json"))
    record = read_json(place_of(tmp_path), file)
    record["metadata"]["zarr.json"]["attributes"]["layout"] = 99
    write_json(place_of(tmp_path), file, record)
    with pytest.raises(StoreError, match=facts("99", "3")):
        open_store(tmp_path)


def test_a_file_system_without_hard_links_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StoreError, match=facts("hard links")):
        Ledger(tmp_path).start("probe", "k0")
