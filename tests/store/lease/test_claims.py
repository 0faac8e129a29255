"""Claims: one owner at a time, taken over when it is dead or silent, whatever the clocks say."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from successors import succeed

from store import (
    Coordinate,
    Family,
    Ledger,
    LostClaimError,
    StoreWriter,
    Variable,
    open_store,
    write_manifest,
)
from store.lease import claims

ROOT = Path(__file__).parents[3]
LEASE = 0.3


def owner(root, *, lease=60.0, then="time.sleep(600)"):
    """Start a process that claims train k, says so, and goes on."""
    code = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r}); from store import Ledger\n"
        f"ledger = Ledger({str(root)!r}, {lease})\n"
        f"print(bool(ledger.start('train', 'k')), flush=True)\n{then}"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "True\n"
    return process


def end(process):
    process.kill()
    process.wait()


def rewrite(root, **changes):
    """Change a claim in place, as if it came from elsewhere; its owner's beat goes on."""
    path = max((root / "claims/train/k").glob("*.json"))
    mark = json.loads(path.read_text()) | changes
    with path.open("r+") as file:
        file.write(json.dumps(mark, indent=1))
        file.truncate()
    return path


def wait_for_claim(ledger, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not (claim := ledger.start("train", "k")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return claim


def test_a_dead_owner_is_followed_at_once_and_a_living_one_is_left_alone(tmp_path):
    process = owner(tmp_path)
    ledger = Ledger(tmp_path)
    assert ledger.running("train") == {"k"} and not ledger.free("train", "k")
    assert ledger.start("train", "k") is None
    end(process)
    assert ledger.running("train") == set() and ledger.free("train", "k")
    assert not ledger.start("train", "k").fenced  # it cannot write any more
    ledger.commit("train", "k", {})
    assert list((tmp_path / "claims/train").iterdir()) == []


def test_a_number_that_another_process_has_got_meanwhile_is_no_owner(tmp_path):
    end(owner(tmp_path))
    rewrite(tmp_path, pid=os.getpid())  # alive, but born at another time
    assert Ledger(tmp_path).start("train", "k")


@pytest.mark.parametrize("started", [0.0, 4e9, -1e12])
def test_silence_ends_a_claim_from_elsewhere_and_clocks_do_not(tmp_path, started):
    """Neither the claim's time stamps nor those of its file mean anything; a beat that moves does."""
    process = owner(tmp_path, lease=LEASE)
    path = rewrite(tmp_path, machine="elsewhere", started=started)
    os.utime(path, (max(started, 0),) * 2)
    ledger = Ledger(tmp_path, LEASE)
    for _ in range(20):  # four leases
        assert ledger.start("train", "k") is None
        time.sleep(LEASE / 5)
    end(process)
    assert ledger.running("train") == {"k"}  # nobody here can know
    before = time.monotonic()
    assert ledger.start("train", "k") is None
    assert wait_for_claim(ledger).fenced
    assert time.monotonic() - before > LEASE * 0.7


def test_what_one_process_found_silent_another_may_believe(tmp_path):
    end(owner(tmp_path, lease=LEASE))
    rewrite(tmp_path, machine="elsewhere")
    watcher, taker = Ledger(tmp_path, LEASE), Ledger(tmp_path, LEASE)
    assert not watcher.free("train", "k") and watcher.claims.silent() == {}
    time.sleep(LEASE)
    (silent,) = watcher.claims.silent().items()
    taker.claims.believe({silent[0]: "another beat"})
    assert taker.start("train", "k") is None
    taker.claims.believe(dict([silent]))
    assert taker.start("train", "k")


def test_of_many_processes_one_takes_a_claim_over(tmp_path):
    end(owner(tmp_path))
    code = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r}); from store import Ledger\n"
        f"print(bool(Ledger({str(tmp_path)!r}).start('train', 'k')), flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    takers = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(6)]
    said = [process.stdout.readline().strip() for process in takers]
    for process in takers:
        end(process)
    assert sorted(said) == ["False"] * 5 + ["True"]


def test_an_owner_that_was_silent_for_too_long_commits_nothing(tmp_path):
    """Its process is stopped, not dead: it wakes after another one has taken over, and finished."""
    then = (
        "import os, signal, store; os.kill(os.getpid(), signal.SIGSTOP)\n"
        "try: ledger.commit('train', 'k', {'by': 'the first'})\n"
        "except store.LostClaimError as lost: print(lost)"
    )
    process = owner(tmp_path, lease=LEASE, then=then)
    ledger = Ledger(tmp_path, LEASE)
    claim = wait_for_claim(ledger)
    assert claim.fenced
    process.send_signal(signal.SIGCONT)
    assert "taken this stage over" in process.communicate(timeout=60)[0]
    ledger.commit("train", "k", {"by": "the second"})
    assert ledger.record("train", "k") == {"by": "the second"}
    assert list((tmp_path / "claims/train").iterdir()) == []


def test_the_first_commit_counts(tmp_path):
    first, second = Ledger(tmp_path), Ledger(tmp_path)
    first.start("train", "k")
    second.commit("train", "k", {"n": 2})  # as if it had taken over and ended between check and commit
    with pytest.raises(LostClaimError, match="finished this stage first"):
        first.commit("train", "k", {"n": 1})
    assert first.record("train", "k") == {"n": 2}


def values(seed):
    return {"entropy": np.random.default_rng(seed).normal(size=10).astype("f4")}


def test_a_former_owner_that_still_writes_does_not_reach_the_rows_of_its_successor(tmp_path):
    family = Family(
        "train", (Coordinate("step", "step", range(10)),), (Variable("entropy", ("step",), "float32"),)
    )
    first, second = Ledger(tmp_path, LEASE), Ledger(tmp_path, LEASE)
    claim = first.start("train", "k")
    late, unaware = (StoreWriter(tmp_path).cell(family, "k", claim=claim) for _ in range(2))
    claim._ended.set()  # its beat stands still
    taken = wait_for_claim(second)
    cell = succeed(tmp_path, family, "k", taken, second, (late, unaware), (values(1), values(2)))
    write_manifest(
        tmp_path, "study", {"factors": ["seed"], "cells": [{"levels": {"seed": 0}, "keys": {"train": "k"}}]}
    )
    found = open_store(tmp_path)["study/train"].ds["entropy"].values
    np.testing.assert_array_equal(found.ravel(), values(2)["entropy"])
    assert late.placement["row"] != cell.placement["row"]


@pytest.mark.parametrize("content", ["", "{", "{}", '{"host": "x"}', "\0\0\0"])
def test_a_torn_claim_is_taken_over_after_a_lease(tmp_path, content, monkeypatch):
    monkeypatch.setattr(claims, "LEASE", 0.2)
    folder = tmp_path / "claims/train/k"
    folder.mkdir(parents=True)
    (folder / "1.json").write_text(content)
    ledger = Ledger(tmp_path)
    assert ledger.start("train", "k") is None  # its owner might be at work
    assert ledger.running("train") == {"k"}
    time.sleep(0.3)
    assert ledger.start("train", "k").fenced
    ledger.release("train", "k")
    assert not list(tmp_path.glob("claims/train/*"))
