"""The ledger and the manifests: what is done, and what an experiment consists of."""

import subprocess
import sys

import pytest

from store import Ledger, StoreError, cells, files, read_manifests, write_manifest


def test_reading_creates_nothing(tmp_path):
    root = tmp_path / "none"
    ledger = Ledger(root)
    assert ledger.done("train") == ledger.failed("train") == ledger.running("train") == set()
    assert read_manifests(root) == {}
    with pytest.raises(StoreError, match="no done record of train k"):
        ledger.record("train", "k")
    assert not root.exists()


def test_a_key_goes_from_running_over_failed_to_done(tmp_path):
    ledger = Ledger(tmp_path)
    assert ledger.start("train", "k") and ledger.start("train", "k")
    assert ledger.running("train") == {"k"}
    ledger.fail("train", "k", {"error": "boom"})
    assert ledger.failed("train") == {"k"} and not ledger.running("train")
    assert ledger.record("train", "k", "failed") == {"error": "boom"}
    ledger.start("train", "k")
    ledger.commit("train", "k", {"summary": {"loss": 1.5}})
    assert ledger.done("train") == {"k"} and not ledger.failed("train") | ledger.running("train")
    assert ledger.record("train", "k") == {"summary": {"loss": 1.5}}
    assert ledger.done("probe") == set()
    ledger.clear("train", "k")
    assert ledger.done("train") == set()
    assert list((tmp_path / "ledger/train").iterdir()) == []


def test_a_write_that_fails_leaves_the_old_record_and_no_litter(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path)
    ledger.commit("train", "k", {"n": 1})
    with pytest.raises(StoreError, match="not JSON"):
        ledger.commit("train", "k", {"n": object()})

    def no_space(_):
        raise OSError("no space left")

    monkeypatch.setattr(files.os, "fsync", no_space)
    with pytest.raises(OSError, match="no space"):
        ledger.commit("train", "k", {"n": 2})
    assert ledger.record("train", "k") == {"n": 1}
    assert [path.name for path in (tmp_path / "ledger/train").iterdir()] == ["k.done.json"]


def test_a_write_cut_off_before_its_rename_is_not_seen(tmp_path):
    code = (
        "import os, pathlib, store; pathlib.Path.replace = lambda *_: os._exit(9);"
        f"store.Ledger({str(tmp_path)!r}).commit('train', 'k', {{'n': 1}})"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert len(list((tmp_path / "ledger/train").iterdir())) == 1
    assert Ledger(tmp_path).done("train") == set()


@pytest.mark.parametrize("text", ['{"n": 1', "", "[1]"])
def test_a_damaged_record_is_named(tmp_path, text):
    ledger = Ledger(tmp_path)
    ledger.commit("train", "k", {})
    (tmp_path / "ledger/train/k.done.json").write_text(text)
    with pytest.raises(StoreError, match=r"k\.done\.json"):
        ledger.record("train", "k")


def test_manifests_and_the_status_of_cells(tmp_path):
    ledger = Ledger(tmp_path)
    listed = [{"levels": {"seed": s}, "keys": {"train": "t", "probe": f"p{s}"}} for s in range(3)]
    write_manifest(tmp_path, "b", {"factors": ["seed"], "cells": listed})
    write_manifest(tmp_path, "a.1", {"factors": [], "cells": []})
    ledger.commit("train", "t", {})
    ledger.start("probe", "p0")
    ledger.fail("probe", "p1", {})
    assert list(read_manifests(tmp_path)) == ["a.1", "b"]
    assert [cell["status"]["probe"] for cell in cells(tmp_path, "b")] == ["running", "failed", "pending"]
    assert {cell["status"]["train"] for cell in cells(tmp_path, "b")} == {"done"}
    assert cells(tmp_path, "b")[0]["levels"] == {"seed": 0}
    with pytest.raises(StoreError, match=r"no experiment 'c'; there are a\.1, b"):
        cells(tmp_path, "c")
    with pytest.raises(StoreError, match="expected letters"):
        write_manifest(tmp_path, "a/b", {"cells": []})
    with pytest.raises(StoreError, match="factor 'a/b': expected a name without '/'"):
        write_manifest(tmp_path, "c", {"factors": [], "cells": [{"levels": {"a/b": 1}, "keys": {}}]})
    with pytest.raises(StoreError, match="'cell', the axis"):
        write_manifest(tmp_path, "c", {"cells": [{"levels": {"cell": 1}, "keys": {}}]})
