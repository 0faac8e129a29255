"""What a bucket far away costs: requests, and round trips one after another, counted on a slow line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import obstore
import pytest
from far_line import FarLine
from obstore.store import from_url
from report_store import Design, write_synthetic
from s3_server import BUCKET, s3_server, settings

from engine import status
from engine.cli.status_tables import status_facts
from store import open_store
from store.backend import requests
from store.backend.locate import place_of
from store.backend.ranges import at_once
from store.errors import DamagedError

CELLS = 50
SIZES = {"seeds": range(2), "examples": 6, "layers": 4, "steps": 5}
ROUNDS = 10


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with s3_server() as port:
        yield port


@pytest.fixture(scope="module")
def line(port: int) -> FarLine:
    return FarLine(port, 0.1)


def written(root: Path, cells: int) -> Path:
    """A store in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        ranks = range(cells // 10)
        return write_synthetic(root, Design({"target": [*"abcde"], "rank": [*ranks]}, **SIZES))


def copied(near: Path, port: int, name: str) -> str:
    """The URL of the same store in the bucket."""
    url = f"s3://{BUCKET}/{name}/store"
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in settings(port).items():
            patch.setenv(variable, value)
        client = from_url(url)
        files = [file for file in near.rglob("*") if file.is_file()]
        at_once(lambda f: obstore.put(client, f.relative_to(near).as_posix(), f.read_bytes()), files)
    return url


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("near") / "store", CELLS)


@pytest.fixture(scope="module")
def far(near: Path, port: int) -> str:
    return copied(near, port, "fifty")


@pytest.fixture(autouse=True)
def _reached_by_the_line(line: FarLine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in settings(line.port).items():
        monkeypatch.setenv(name, value)
    requests.client.cache_clear()


@pytest.fixture
def url(far: str) -> str:
    return far


def test_a_look_at_50_cells_takes_few_round_trips(url: str, near: Path, line: FarLine) -> None:
    for look in (lambda root: len(status_facts(root)), status, open_store):
        with line.counting() as count:
            found = look(url)
        assert count.rounds <= ROUNDS, (count.rounds, count.by_folder())
        assert count.number <= 4 * CELLS + 25
        if look is not open_store:
            assert found == look(near)


def test_analyses_that_read_cell_by_cell_take_few_round_trips(url: str, near: Path, line: FarLine) -> None:
    tree, there = (open_store(root)["synthetic"] for root in (url, near))
    for analyse in (
        lambda node: node.ablation.relative_entropy("target", "a"),
        lambda node: node.ablation.means("correct"),
        lambda node: node.ablation.means("loss", stage="train"),
        lambda node: node.ablation.saturation(),
    ):
        with line.counting() as count:
            found = analyse(tree)
        assert count.rounds <= ROUNDS, (count.rounds, count.by_folder())
        assert count.number <= 2 * CELLS
        assert found.identical(analyse(there))


def test_one_cell_is_read_without_the_others(url: str, line: FarLine) -> None:
    entropy = open_store(url)["synthetic/probe"]["entropy"].isel(cell=7)
    with line.counting() as count:
        for _ in range(3):
            entropy.load(), entropy.values
    assert count.number == 1


def test_chunks_before_the_end_of_a_shard_are_fetched_too(
    url: str, near: Path, line: FarLine, monkeypatch
) -> None:
    monkeypatch.setattr("store.arrays.shards._END", 0)
    tree, there = (open_store(root)["synthetic/probe"] for root in (url, near))
    for name in ("entropy", "watch_rank"):
        with line.counting() as count:
            found = tree[name].values
        assert count.rounds <= ROUNDS and count.number <= 2 * CELLS
        np.testing.assert_array_equal(found, there[name].values)


@pytest.mark.parametrize("kept", [2**27, 2000])
def test_what_does_not_fit_is_fetched_again(url: str, near: Path, kept: int, monkeypatch) -> None:
    monkeypatch.setattr("store.arrays.far_files.KEPT", kept)
    tree, there = (open_store(root)["synthetic"] for root in (url, near))
    for cell in (3, 1, 4, 1, 5, 9, 2, 6):
        for stage, name in (("probe", "max_prob"), ("evaluate", "generated_text")):
            here, same = (node[stage][name].isel(cell=cell).values for node in (tree, there))
            np.testing.assert_array_equal(here, same)


@pytest.mark.parametrize("damage", [b"", b"short"])
def test_damage_far_away_is_named(port: int, tmp_path: Path, damage: bytes) -> None:
    url = copied(written(tmp_path / "store", 10), port, f"damaged{len(damage)}")
    place = place_of(url)
    for stage, array, variable in (
        ("probe", "float32-example-layer-position", "entropy"),
        ("evaluate", "string-example", "prediction"),
    ):
        for file in place.sizes(f"results.zarr/{stage}"):
            if f"{array}/c.3." in file:
                place.write(file, damage)
        values = open_store(url)[f"synthetic/{stage}"][variable]
        with pytest.raises(DamagedError, match=rf"row 3, {stage} {stage}00000003 .*is damaged"):
            values.load()
        values.isel(cell=[0, 1, 2, 4]).load()
