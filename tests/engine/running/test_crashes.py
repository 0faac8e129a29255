"""What a store is worth when its writers are killed, stopped, or work on it together."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from children import assert_same, assert_whole, contents, run, start
from commands import ran
from facts import told
from small_study import EVERY_STAGE, small_spec

from store import Ledger

KILLS = int(os.environ.get("ABLATION_ENGINE_KILLS", "6"))
DEATHS = int(os.environ.get("ABLATION_ENGINE_KILLS", "2"))  # with --workers
# Some cells stop early, and keep an adapter of an earlier step.
TRAIN = """
steps = 6
lr = 0.03
warmup = 0.0
checkpoint_every = 2
early_stopping = 1
validate_every = 1
"""
DROPOUT = "[factors.dropout]\npath = 'lora.dropout'\nvalues = [0.3]\n"


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rated_file: Path
) -> tuple[Path, Path, float]:
    """The spec, its store from an undisturbed run, and the seconds that took."""
    folder = tmp_path_factory.mktemp("undisturbed")
    spec = small_spec(folder, tiny_model, rated_file, DROPOUT, train=TRAIN)
    began = time.monotonic()
    run(folder, "execute", spec)
    return spec, folder / "store", time.monotonic() - began


STAGES = ("data", "base", "train", "lens", "evaluate", "probe", "intervene")
WORKERS = max(2, os.cpu_count() or 1)  # so that each has one thread


def operations(counts: Path) -> dict[str, int]:
    """How many file operations of each stage there were."""
    return {stage: (counts / stage).stat().st_size for stage in STAGES}


@pytest.mark.timeout(600 + 120 * DEATHS)
def test_workers_and_their_parent_are_killed_at_every_stage(
    tmp_path: Path, tiny_model: Path, rated_file: Path
) -> None:
    """In each round, which is one store, a worker, the first process or both die at a drawn operation of each
    stage, or of some drawn ones; in the data stage, which no worker runs, the first process.
    """
    spec = small_spec(tmp_path, tiny_model, rated_file, EVERY_STAGE, train=TRAIN)
    settings = ["seeds=[0]", f"executor.retries={2 * len(STAGES)}"]
    arguments = (
        "execute",
        spec,
        "--workers",
        WORKERS,
        *(word for each in settings for word in ("--set", each)),
    )
    (tmp_path / "whole-counts").mkdir()
    run(tmp_path, "execute", spec, "--set", "seeds=[0]", counts=tmp_path / "whole-counts", deaths={})
    found, expected = operations(tmp_path / "whole-counts"), contents(tmp_path / "store")
    draw, died, rounds = random.Random(11), list[str](), 0
    while len(died) < DEATHS:
        rounds += 1
        folder = tmp_path / str(rounds)
        root, counts = folder / "store", folder / "counts"
        counts.mkdir(parents=True)
        stages = draw.sample(STAGES, min(len(STAGES), DEATHS - len(died)))
        deaths = {
            stage: (draw.randint(1, found[stage]), draw.choice(["worker", "parent", "both"]))
            for stage in stages
        }
        code = None
        while code != 0:
            child = start(folder, *arguments, "--store", root, deaths=deaths, counts=counts)
            child.join(300)
            code = child.exitcode
            assert code in (0, -signal.SIGKILL), (folder / "output").read_text()
            if (root / "experiments").is_dir():
                assert_whole(root, tmp_path / "store")
        assert_same(contents(root), expected)
        if not (counts / "deaths").exists():
            continue  # there were fewer operations than in one process
        now = (counts / "deaths").read_text().splitlines()
        died += now
        sys.stdout.write(f"store {folder.name}: {', '.join(now)}\n")


def wait_for(path: Path, pattern: str) -> None:
    deadline = time.monotonic() + 120
    while not list(path.glob(pattern)):
        assert time.monotonic() < deadline
        time.sleep(0.002)


ALL = {"data": 1, "base": 1, "train": 4, "evaluate": 4, "probe": 4}


@pytest.mark.timeout(120 * KILLS)
def test_kills_at_any_moment_lose_nothing(undisturbed, tmp_path: Path) -> None:
    """Every other kill comes before a drawn file operation, and so falls between any two of them; the others
    come at a drawn time, and so also fall into computation and into writes.
    """
    spec, whole, seconds = undisturbed
    expected, draw = contents(whole), random.Random(7)
    folder, kills, stores = tmp_path / "0", 0, 0
    while kills < KILLS:
        root = folder / "store"
        by_event = kills % 2 == 0
        event = draw.randint(1, 400) if by_event else None
        child = start(folder, "execute", spec, "--store", root, before_event=event)
        child.join(300 if by_event else draw.uniform(0, seconds))
        child.kill()
        child.join()
        kills += child.exitcode == -signal.SIGKILL
        if (root / "experiments").is_dir():
            assert_whole(root, whole)
        if child.exitcode == 0 or kills == KILLS:
            run(folder, "execute", spec, "--store", root)
            assert_same(contents(root), expected)
            stores += 1
            folder = tmp_path / str(stores)
    assert stores


def test_executors_that_start_together_share_the_work(undisturbed, tmp_path: Path) -> None:
    spec, whole, _ = undisturbed
    root = tmp_path / "shared/store"
    both = [start(tmp_path / name, "execute", spec, "--store", root) for name in ("one", "two")]
    for child in both:
        child.join(300)
    outputs = [(tmp_path / name / "output").read_text() for name in ("one", "two")]
    assert [child.exitcode for child in both] == [0, 0], outputs
    assert ran(*outputs) == ALL
    assert_same(contents(root), contents(whole))
    assert list((root / "claims").glob("*/*")) == []


def test_a_held_stage_is_left_alone_or_waited_for(undisturbed, tmp_path: Path) -> None:
    spec, whole, _ = undisturbed
    root = tmp_path / "first/store"
    arguments = ("execute", spec, "--store", root)
    first = start(tmp_path / "first", *arguments)
    wait_for(root, "train/*/checkpoints/*/trainer_state.json")
    os.kill(first.pid, signal.SIGSTOP)
    second = run(tmp_path / "second", *arguments, "--no-wait")
    assert ran(second) == {"train": 3, "evaluate": 3, "probe": 3}
    assert told(second, "1 cell", "another process")
    third = start(tmp_path / "third", *arguments)
    time.sleep(1)
    os.kill(first.pid, signal.SIGCONT)
    for child in (first, third):
        child.join(300)
        assert child.exitcode == 0
    assert_same(contents(root), contents(whole))


def test_an_owner_that_slept_through_its_lease_harms_nothing(undisturbed, tmp_path: Path) -> None:
    """It wakes in the middle of its training, or of what comes behind it, when all is done."""
    spec, whole, _ = undisturbed
    root = tmp_path / "first/store"
    arguments = ("execute", spec, "--store", root, "--set", "executor.lease=0.5")
    first = start(tmp_path / "first", *arguments)
    wait_for(root, "train/*/checkpoints/*/trainer_state.json")
    os.kill(first.pid, signal.SIGSTOP)
    second = run(tmp_path / "second", *arguments)
    assert ran(second) == {"train": 4, "evaluate": 4, "probe": 4}
    os.kill(first.pid, signal.SIGCONT)
    first.join(300)
    assert first.exitcode == 0 and ran((tmp_path / "first/output").read_text()) == {"data": 1, "base": 1}
    assert_same(contents(root), contents(whole))


def test_an_owner_whose_threads_stood_still_for_a_lease_harms_nothing(undisturbed, tmp_path: Path) -> None:
    """A call into C may keep Python's lock, and with it the thread that renews the claims."""
    spec, whole, _ = undisturbed
    root, counts = tmp_path / "first/store", tmp_path / "counts"
    counts.mkdir()
    arguments = ("execute", spec, "--store", root, "--set", "executor.lease=1")
    asleep = {"checkpoints": (1, "asleep"), "entropy": (1, "asleep")}  # in a training, and in a probe
    first = start(tmp_path / "first", *arguments, deaths=asleep, counts=counts)
    wait_for(counts, "checkpoints")
    second = run(tmp_path / "second", *arguments)
    first.join(300)
    output = (tmp_path / "first/output").read_text()
    assert first.exitcode == 0, output
    assert ran(second)["train"] > 0 and ran(output, second) == ALL  # what was lost is told by its taker alone
    assert "checkpoints 1 asleep" in (counts / "deaths").read_text()
    assert_same(contents(root), contents(whole))
    assert list((root / "claims").glob("*/*")) == []


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGHUP], [signal.SIGINT, signal.SIGINT]])
def test_signals_end_an_execution_and_free_its_claims(
    undisturbed, tmp_path: Path, signals: list[signal.Signals]
) -> None:
    spec, whole, _ = undisturbed
    root = tmp_path / "first/store"
    first = start(tmp_path / "first", "execute", spec, "--store", root)
    wait_for(root, "train/*/checkpoints/*/trainer_state.json")
    for number in signals:
        os.kill(first.pid, number)
        time.sleep(0.05)
    first.join(300)
    assert first.exitcode == 130
    assert list((root / "claims").glob("*/*")) == []
    run(tmp_path / "first", "execute", spec, "--store", root)
    assert_same(contents(root), contents(whole))


def _truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _flip_a_bit(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize(
    ("damage", "found_wrong"),
    [(_truncate, "not a whole safetensors file"), (_flip_a_bit, "its content has changed since it was made")],
)
def test_a_damaged_adapter_is_named_and_trained_again(
    undisturbed, tmp_path: Path, damage: Callable[[Path], None], found_wrong: str
) -> None:
    spec, whole = undisturbed[0], shutil.copytree(undisturbed[1], tmp_path / "store")
    expected = contents(whole)
    (file, *_) = sorted(whole.glob("train/*/adapter/adapter_model.safetensors"))
    key = file.parts[-3]
    damage(file)
    probe_again = ("execute", spec, "--store", whole, "--set", "probe.top_k=2")
    child = start(tmp_path / "again", *probe_again)
    child.join(300)
    output = (tmp_path / "again/output").read_text()
    assert child.exitcode == 1 and f"{key}/adapter/adapter_model.safetensors: {found_wrong}" in output
    assert "--retry-failed trains it again" in output and ran(output) == {"probe": 3}
    assert Ledger(whole).failed("train") == {key}
    retried = run(tmp_path / "again", *probe_again, "--retry-failed")
    assert ran(retried) == {"train": 1, "probe": 1}
    found = contents(whole)
    assert (
        found[f"train/{key}/adapter/adapter_model.safetensors"]
        == expected[f"train/{key}/adapter/adapter_model.safetensors"]
    )
