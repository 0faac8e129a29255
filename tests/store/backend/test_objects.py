"""A store in a bucket, against a server that speaks S3 on loopback: conditions, claims, rows, whole cells."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import numpy as np
import obstore
import pytest
from facts import facts
from obstore.store import from_url
from s3_server import BUCKET, SECRET, Line, s3_server, settings
from successors import succeed

from store import (
    Coordinate,
    Family,
    Ledger,
    LostClaimError,
    StoreError,
    StoreWriter,
    Variable,
    open_store,
    write_manifest,
)
from store.backend import bucket as objects
from store.backend import requests
from store.backend.locate import place_of
from store.errors import DamagedError, UnreachableError
from store.lease import claims
from store.lease.lock import locked
from store.upkeep.garbage import delete_garbage, find_garbage

ROOT = Path(__file__).parents[3]
LEASE = 0.6
FAMILY = Family(
    "probe", (Coordinate("example", "example", range(10)),), (Variable("entropy", ("example",), "float32"),)
)
numbers = count()


@pytest.fixture(scope="module")
def port():
    with s3_server() as port:
        yield port


@pytest.fixture
def url(port, monkeypatch) -> str:
    """A place of its own in the bucket."""
    for name, value in settings(port).items():
        monkeypatch.setenv(name, value)
    requests.client.cache_clear()
    return f"s3://{BUCKET}/{next(numbers)}/store"


def values(seed):
    return {"entropy": np.random.default_rng(seed).normal(size=10).astype("f4")}


def listed(root, keys: int) -> None:
    cells = [{"levels": {"seed": n}, "keys": {"probe": f"k{n}"}} for n in range(keys)]
    write_manifest(root, "study", {"factors": ["seed"], "cells": cells})


def write(root, key: str, seed: int, ledger: Ledger | None = None) -> None:
    ledger = ledger or Ledger(root)
    with StoreWriter(root).cell(FAMILY, key, claim=ledger.start("probe", key)) as cell:
        cell.append(values(seed))
    ledger.commit("probe", key, cell.placement)


def raw(url: str) -> dict[str, bytes]:
    """All objects under a URL, as they lie there."""
    client = from_url(url)
    paths = [entry["path"] for batch in obstore.list(client) for entry in batch]
    return {path: bytes(obstore.get(client, path).bytes()) for path in paths}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ftp://bucket/x", r"expected s3://BUCKET|one of s3://BUCKET"),
        ("s3://", "expected s3://BUCKET/PREFIX"),
        ("s3://bucket/a/../b", "of plain names"),
        (f"s3://me:{SECRET}@bucket/x", "no user, password or query"),
        (f"s3://bucket/x?sig={SECRET}", "no user, password or query"),
    ],
)
def test_a_url_that_cannot_be_a_stores_is_refused_and_no_secret_repeated(text, message):
    with pytest.raises(StoreError, match=message) as refused:
        open_store(text)
    assert SECRET not in str(refused.value)


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(StoreError, match=facts("obstore", "'ablation-engine[cloud]'")):
        open_store("s3://bucket/x")


def test_what_is_not_there_is_named(url):
    with pytest.raises(StoreError, match="no such store"):
        open_store(url)


def test_a_server_that_heeds_no_conditions_is_refused_before_anything_is_written(monkeypatch):
    with s3_server("careless") as port:
        for name, value in settings(port).items():
            monkeypatch.setenv(name, value)
        requests.client.cache_clear()
        with pytest.raises(StoreError, match=facts("conditional puts")):
            listed(f"s3://{BUCKET}/careless", 1)
        assert raw(f"s3://{BUCKET}") == {}


def test_a_put_whose_answer_is_lost_is_known_for_ones_own(url, port, monkeypatch):
    place, line = place_of(url), Line(port)
    place.write("there", b"theirs")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{line.port}")
    requests.client.cache_clear()
    for answers in (1, 2):
        line.lose(answers)
        assert place.create(f"mine{answers}", b"mine")
    line.lose(1)
    assert place.swap("mine1", b"mine", b"mine again")
    line.lose(1)
    assert not place.create("there", b"mine")
    assert line.lost == 5 and (place.read("there"), place.read("mine1")) == (b"theirs", b"mine again")
    held = place.hold("mine1")
    line.lose(1)
    held.renew(0, b"MINE")
    assert held.held() and place.read("mine1") == b"MINE again"
    place.write("mine1", b"another's")
    assert not held.held()
    with pytest.raises(LostClaimError):
        held.renew(0, b"MINE")
    assert place.read("mine1") == b"another's"


def test_a_dead_owner_is_followed_at_once_and_a_living_one_is_left_alone(url):
    code = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r}); from store import Ledger\n"
        f"ledger = Ledger({url!r})\nprint(bool(ledger.start('train', 'k')), flush=True); time.sleep(600)"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    said = [process.stdout.readline() for process in processes]
    assert sorted(said) == ["False\n", "False\n", "True\n"]
    ledger = Ledger(url)
    assert ledger.running("train") == {"k"} and ledger.start("train", "k") is None
    for process in processes:
        process.kill()
        process.wait()
    assert ledger.running("train") == set()
    assert not ledger.start("train", "k").fenced
    ledger.commit("train", "k", {})
    assert not [name for name in raw(url) if name.startswith("claims/")]


def elsewhere(monkeypatch) -> None:
    """Let what claims are read seem to be another machine's, whose processes nobody here can look for."""
    monkeypatch.setattr(claims, "_dead", lambda mark: False)


def test_an_owner_is_followed_after_a_lease_of_silence_and_reaches_nothing_any_more(url, monkeypatch):
    """Its beat stands still, as when its machine is cut off; no time stamp is looked at."""
    elsewhere(monkeypatch)
    first, second = Ledger(url, LEASE), Ledger(url, LEASE)
    claim = first.start("probe", "k0")
    for _ in range(8):
        assert second.start("probe", "k0") is None
        time.sleep(LEASE / 4)
    listed(url, 1)
    late, unaware = (StoreWriter(url).cell(FAMILY, "k0", claim=claim) for _ in range(2))
    claim._ended.set()
    claim._thread.join()
    assert second.start("probe", "k0") is None
    silent = time.monotonic()
    while (taken := second.start("probe", "k0")) is None:
        time.sleep(0.02)
    assert taken.fenced and time.monotonic() - silent > LEASE / 2
    succeed(url, FAMILY, "k0", taken, second, (late, unaware), (values(1), values(2)))
    claim._ended.clear()
    with pytest.raises(LostClaimError):
        first.commit("probe", "k0", late.placement)
    found = open_store(url)["study/probe"].ds["entropy"].values
    np.testing.assert_array_equal(found.ravel(), values(2)["entropy"])


def test_a_claim_counts_without_a_look_for_half_a_lease_and_not_longer(url, monkeypatch):
    elsewhere(monkeypatch)
    claim = Ledger(url, 60.0).start("train", "k")
    monkeypatch.setattr(objects.Bucket, "read", lambda *_: pytest.fail("a look"))
    claim.check()
    claim._beaten -= 31
    with pytest.raises(pytest.fail.Exception, match="a look"):
        claim.check()


def test_writers_of_one_family_get_rows_of_their_own(url):
    """Eight at once: each swap that fails is tried again on what is there by then."""

    def some(number: int) -> dict[str, int]:
        return StoreWriter(url).allocate(FAMILY, [f"k{number}-{n}" for n in range(3)])

    with ThreadPoolExecutor(8) as pool:
        rows = [row for found in pool.map(some, range(8)) for row in found.values()]
    assert sorted(rows) == list(range(24))
    (group,) = (name for name in raw(url) if name.count("/") == 3 and name.endswith("zarr.json"))
    assert place_of(url).group(group.rpartition("/")[0])["float32-example"].shape[0] == 24


def test_the_lock_lets_one_in_at_a_time(url):
    inside, seen = [], []

    def enter(number: int) -> None:
        with locked(place_of(url)) as check:
            inside.append(number)
            check()
            seen.append(len(inside))
            inside.remove(number)

    threads = [threading.Thread(target=enter, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 4
    assert raw(url) == {}


def test_a_reader_sees_whole_cells_only_and_damage_is_named(url):
    listed(url, 2)
    write(url, "k0", 0)
    ledger = Ledger(url)
    with StoreWriter(url).cell(FAMILY, "k1", claim=ledger.start("probe", "k1")) as cell:
        cell.append(values(1))
    assert list(open_store(url)["study/probe"].ds["seed"].values) == [0]
    ledger.commit("probe", "k1", cell.placement)
    ds = open_store(url)["study/probe"].ds
    for seed in range(2):
        np.testing.assert_array_equal(ds["entropy"].sel(seed=seed), values(seed)["entropy"])
    (chunk,) = (name for name in raw(url) if "float32-example/c.1." in name)
    spoiled = bytearray(place_of(url).read(chunk))
    spoiled[len(spoiled) // 3] ^= 1
    place_of(url).write(chunk, bytes(spoiled))
    with pytest.raises(StoreError, match=facts("row 1", "probe k1", "seed=1", "damaged")):
        open_store(url)["study/probe"].ds["entropy"].values  # noqa: B018


def test_a_reader_that_is_cut_off_says_so_and_calls_nothing_damaged(url, port, monkeypatch):
    listed(url, 1)
    write(url, "k0", 0)
    line = Line(port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{line.port}")
    monkeypatch.setattr(requests, "PATIENCE", 0.3)
    requests.client.cache_clear()
    ds = open_store(url)["study/probe"].ds
    line.cut()
    with pytest.raises(UnreachableError):
        ds["entropy"].values  # noqa: B018
    line.mend()
    np.testing.assert_array_equal(ds["entropy"].values.ravel(), values(0)["entropy"])


def test_a_folder_is_published_whole_by_the_first_and_fetched_unchanged(url, tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATION_ENGINE_CACHE", str(tmp_path / "here"))
    home = place_of(url).under("train/k")

    def made(text: str) -> Path:
        folder = home.scratch() / f"adapter.{text}.partial"
        (folder / "inner").mkdir(parents=True)
        (folder / "a").write_text(text)
        (folder / "inner/b").write_text(text * 3)
        return folder

    with pytest.raises(FileNotFoundError):
        home.local("adapter")
    assert home.publish(made("first"), "adapter")
    assert not home.publish(made("second"), "adapter")
    assert not list(home.scratch().glob("*.partial"))
    monkeypatch.setenv("ABLATION_ENGINE_CACHE", str(tmp_path / "there"))
    away = place_of(url).under("train/k")
    found = away.local("adapter")
    assert found.is_relative_to(tmp_path / "there") and (found / "inner/b").read_text() == "first" * 3
    assert len(raw(url)) == 3
    (changed,) = (name for name in raw(url) if name.endswith("/a"))
    place_of(url).write(changed, b"fir5t")
    assert (away.local("adapter") / "a").read_text() == "first"  # as it was fetched
    with away.fresh() as fresh, pytest.raises(DamagedError, match=r"adapter\.\w+/a: its content has changed"):
        fresh.local("adapter")


def test_what_was_uploaded_and_never_published_is_garbage_once_it_is_old(url, tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATION_ENGINE_CACHE", str(tmp_path))
    listed(url, 1)
    write(url, "k0", 0)
    write(url, "other", 1)
    place = place_of(url)
    manifest = {"factors": [], "cells": [{"levels": {}, "keys": {"train": "k"}}]}
    write_manifest(url, "training", manifest)
    stray = f"train/k/adapter.{'0' * 32}"
    place.write(f"{stray}/adapter_model.safetensors", b"1234")
    place.write("train/gone/adapter.manifest.json", b"{}")
    unreached = {"ledger/probe/other.done.json", "train/gone", "row 1, other"}
    assert {garbage.what.rpartition(": ")[2] for garbage in find_garbage(url)} == unreached
    monkeypatch.setattr(objects.Bucket, "age", lambda *_: 7200.0)
    assert stray in {garbage.what for garbage in find_garbage(url)}
    delete_garbage(url)
    assert find_garbage(url) == []
    left = {name.partition("/")[0] for name in raw(url)}
    assert left == {"experiments", "families", "ledger", "results.zarr", "store.json"}
    np.testing.assert_array_equal(
        open_store(url)["study/probe"].ds["entropy"].values.ravel(), values(0)["entropy"]
    )
