"""Whole studies on a store in a bucket: equal to a folder's, whatever is killed, shared or cut off."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from children import assert_same, assert_whole, contents, run, start
from commands import engine, ran
from s3_server import BUCKET, SECRET, Line, s3_server, settings
from small_study import small_spec

from store import Ledger
from store.backend import requests
from store.backend.locate import place_of

KILLS = int(os.environ.get("ABLATION_ENGINE_BUCKET_KILLS", "4"))
TRAIN = "steps = 6\ncheckpoint_every = 2"
ALL = {"data": 1, "base": 1, "train": 4, "evaluate": 4, "probe": 4}


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rated_file: Path
) -> tuple[Path, Path]:
    """A spec, and its store in a folder."""
    folder = tmp_path_factory.mktemp("undisturbed")
    spec = small_spec(folder, tiny_model, rated_file, train=TRAIN)
    run(folder, "execute", spec)
    return spec, folder / "store"


@pytest.fixture(scope="module")
def port():
    with s3_server() as port:
        yield port


@pytest.fixture
def url(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place of its own in the bucket, which this process can reach."""
    for name, value in settings(port).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ABLATION_ENGINE_CACHE", str(tmp_path / "reader"))
    requests.client.cache_clear()
    return f"s3://{BUCKET}/{tmp_path.name}"


def on(port: int, machine: Path) -> dict[str, str]:
    """The environment of a machine: how it reaches the bucket, and its own cache."""
    return {**settings(port), "ABLATION_ENGINE_CACHE": str(machine)}


def all_objects(url: str) -> dict[str, bytes]:
    client = place_of(url)._client
    import obstore

    paths = [entry["path"] for batch in obstore.list(client) for entry in batch]
    return {path: bytes(obstore.get(client, path).bytes()) for path in paths}


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, undisturbed: tuple[Path, Path], port: int
) -> tuple[Path, str, str]:
    """The spec with a store in the bucket, what its execution said, and the store's URL."""
    folder, url = tmp_path_factory.mktemp("finished"), f"s3://{BUCKET}/finished"
    named = folder / "named.toml"
    named.write_text(undisturbed[0].read_text().replace(str(undisturbed[1]), url))
    return named, run(folder, "execute", named, environment=on(port, folder / "cache")), url


def test_a_study_in_a_bucket_equals_one_in_a_folder(
    undisturbed, finished, url: str, port: int, tmp_path: Path
) -> None:
    """The spec names the store; commands read it; nothing holds a secret; on another machine all is done."""
    whole, (named, output, url) = undisturbed[1], finished
    assert ran(output) == ALL and f"store: {url}" in output
    assert_same(contents(url), contents(whole))
    assert "14 done stages read, 0 problems" in engine("verify", url).output
    assert "garbage: 0 items" in engine("gc", url).output
    assert "14 cached" in engine("plan", named).output
    assert f"4 cells in {url}" in engine("status", url).output
    assert engine("logs", url).output.count("train_loss") == 4
    assert "0 to +0" in engine("compare", url, whole).output
    assert engine("report", url).output == f"{url}/report.html\n"
    assert "true label" in engine("show", url, "--cell", "target=label,seed=0").output
    assert "expected -o FOLDER" in engine("export", url, "--to", "csv", code=2).output
    assert "summary.csv" in engine("export", url, "--to", "csv", "-o", tmp_path / "csv").output
    again = run(tmp_path, "execute", named, environment=on(port, tmp_path / "two"))
    assert "Nothing to do: 4 cells" in again
    for content in [*all_objects(url).values(), output.encode(), again.encode()]:
        assert SECRET.encode() not in content
    assert not {name.partition("/")[0] for name in all_objects(url)} & {
        "claims",
        "locks",
        ".probe",
        "progress",
    }


@pytest.mark.parametrize("text", [f"s3://me:{SECRET}@bucket/x", "ftp://bucket/x"])
def test_a_spec_with_another_url_is_refused(undisturbed, tmp_path: Path, text: str) -> None:
    spec, whole = undisturbed
    named = tmp_path / "named.toml"
    named.write_text(spec.read_text().replace(str(whole), text))
    output = engine("plan", named, code=2).output
    assert "named.toml:4" in output and "s3://BUCKET/PREFIX" in output and SECRET not in output
    assert SECRET not in engine("plan", spec, "--store", text, code=2).output


def test_adapters_along_a_training_reach_another_machine(
    undisturbed, url: str, port: int, tmp_path: Path
) -> None:
    """One that measures other steps takes those that are kept, and trains nothing again."""
    words = (
        "execute",
        undisturbed[0],
        "--only",
        "seed=0",
        "--only",
        "target=label",
        "--set",
        "train.steps=4",
    )
    first, other = ("--set", "probe.at=[1, 2]"), ("--set", "probe.at=[0, 2]")
    run(tmp_path / "one", *words, *first, "--store", url, environment=on(port, tmp_path / "one-cache"))
    kept = {name: content for name, content in all_objects(url).items() if "/adapter-" in name}
    run(tmp_path / "two", *words, *other, "--store", url, environment=on(port, tmp_path / "two-cache"))
    assert {name: all_objects(url)[name] for name in kept} == kept and kept
    run(tmp_path / "three", *words, *other, "--store", tmp_path / "three/store")
    assert_same(contents(url), contents(tmp_path / "three/store"))
    assert "0 problems" in engine("verify", url).output
    assert not any("checkpoint" in name for name in all_objects(url))


def test_executors_on_two_machines_share_the_work(undisturbed, url: str, port: int, tmp_path: Path) -> None:
    spec, whole = undisturbed
    both = [
        start(
            tmp_path / name, "execute", spec, "--store", url, environment=on(port, tmp_path / f"{name}-cache")
        )
        for name in ("one", "two")
    ]
    while any(child.is_alive() for child in both):  # a reader beside them
        if "experiments" in place_of(url).names(""):
            assert_whole(url, whole)
        time.sleep(0.3)
    outputs = [(tmp_path / name / "output").read_text() for name in ("one", "two")]
    assert [child.exitcode for child in both] == [0, 0], outputs
    assert ran(*outputs) == ALL
    assert_same(contents(url), contents(whole))


@pytest.mark.timeout(120 * KILLS)
def test_kills_at_any_moment_lose_nothing(undisturbed, url: str, port: int, tmp_path: Path) -> None:
    """A process dies before a drawn request; the next goes on, here or on a machine that has nothing."""
    spec, whole = undisturbed
    draw, kills, machine = random.Random(11), 0, 0
    while kills < KILLS:
        child = start(
            tmp_path, "execute", spec, "--store", url, environment=on(port, tmp_path / str(machine)),
            before_request=draw.randint(20, 200),
        )  # fmt: skip
        child.join(300)
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL, (tmp_path / "output").read_text()
        kills += 1
        machine += draw.randint(0, 1)
        if "experiments" in place_of(url).names(""):
            assert_whole(url, whole)
    assert kills
    run(tmp_path, "execute", spec, "--store", url, environment=on(port, tmp_path / "last"))
    assert_same(contents(url), contents(whole))
    assert "0 problems" in engine("verify", url).output


def when(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("seconds", [1.0, None])
def test_a_line_that_is_cut_is_waited_for_or_named(
    undisturbed, url: str, port: int, tmp_path: Path, seconds: float | None
) -> None:
    """A short cut is bridged by trying again; a long one ends the run, and the next goes on."""
    spec, whole = undisturbed
    line = Line(port)
    patience = 60 if seconds else 1.5
    child = start(
        tmp_path, "execute", spec, "--store", url, environment=on(line.port, tmp_path), patience=patience
    )  # fmt: skip
    ledger = Ledger(url)
    when(lambda: bool(ledger.done("train")))
    line.cut()
    if seconds:
        time.sleep(seconds)
        line.mend()
    child.join(300)
    output = (tmp_path / "output").read_text()
    assert_whole(url, whole)
    if seconds:
        assert child.exitcode == 0 and ran(output) == ALL, output
    else:
        assert child.exitcode == 1 and f"{url}/" in output, output
        assert "Traceback" not in output, output
        line.mend()
        run(
            tmp_path,
            "execute",
            spec,
            "--store",
            url,
            "--retry-failed",
            environment=on(line.port, tmp_path),
        )
    assert_same(contents(url), contents(whole))


def test_damage_in_a_bucket_is_named_and_mended(
    finished, undisturbed, url: str, port: int, tmp_path: Path
) -> None:
    """What is mended elsewhere takes the adapters that another machine has trained."""
    spec, place = finished[0], place_of(url)
    for name, content in all_objects(finished[2]).items():
        place.write(name, content)
    ledger = Ledger(url)
    trained, (data,) = sorted(ledger.done("train")), ledger.done("data")
    names = sorted(all_objects(url))

    def first(*parts: str) -> str:
        return next(name for name in names if all(part in name for part in parts))

    for name in (first(f"train/{trained[0]}", "tensors"), first(f"data/{data}", "/examples.jsonl.")):
        spoiled = bytearray(place.read(name))
        spoiled[-30] ^= 1
        place.write(name, bytes(spoiled))
    place.remove(f"train/{trained[1]}/adapter.manifest.json")
    place.remove(first("results.zarr/probe/", "/c.0.0.0.0.0"))
    output = engine("verify", url, code=1).output
    assert output.count("its content has changed") == 2 and f"train/{trained[1]}/adapter: missing" in output
    assert "4 problems" in output and "chunk files, expected" in output
    engine("verify", url, "--fix", code=1)
    said = run(tmp_path, "execute", spec, "--store", url, environment=on(port, tmp_path / "other"))
    assert ran(said) == {"data": 1, "train": 2, "probe": 1}
    assert_same(contents(url), contents(undisturbed[1]))
    engine("execute", spec, "--store", url, "--set", "seeds=[1]")
    assert "deleted: 14 items" in engine("gc", url, "--delete").output
    assert "0 problems" in engine("verify", url).output
    assert len(ledger.done("train")) == 2
