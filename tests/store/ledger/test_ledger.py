"""The ledger and the manifests: what is done, and what an experiment consists of."""

import json
import subprocess
import sys

import pytest
from facts import facts

from store import (
    Coordinate,
    Family,
    Ledger,
    StoreError,
    StoreWriter,
    Variable,
    cells,
    open_store,
    read_manifests,
    write_manifest,
)
from store.backend import records as files
from store.errors import DamagedError
from store.upkeep.mend import fix
from store.upkeep.verify import verify


def test_reading_creates_nothing(tmp_path):
    root = tmp_path / "none"
    ledger = Ledger(root)
    assert ledger.done("train") == ledger.failed("train") == ledger.running("train") == set()
    assert read_manifests(root) == {}
    with pytest.raises(StoreError, match=facts("train k")):
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
    with pytest.raises(StoreError, match=facts("'c'", "a.1, b")):
        cells(tmp_path, "c")
    with pytest.raises(StoreError, match="expected letters"):
        write_manifest(tmp_path, "a/b", {"cells": []})
    with pytest.raises(StoreError, match=facts("'a/b'", "'/'")):
        write_manifest(tmp_path, "c", {"factors": [], "cells": [{"levels": {"a/b": 1}, "keys": {}}]})
    with pytest.raises(StoreError, match="'cell', the axis"):
        write_manifest(tmp_path, "c", {"cells": [{"levels": {"cell": 1}, "keys": {}}]})


def test_a_record_is_held_against_its_checksum_and_its_name(tmp_path):
    """Any flipped bit, any cut, another record in its place, and one without checksum."""
    ledger = Ledger(tmp_path)
    ledger.commit("train", "k", {"n": 1, "text": "é\u2028"})
    ledger.commit("train", "other", {"n": 2})
    file = tmp_path / "ledger/train/k.done.json"
    whole = file.read_bytes()
    assert ledger.record("train", "k") == {"n": 1, "text": "é\u2028"}
    assert json.loads(whole)["n"] == 1
    flips = [
        whole[:i] + bytes([whole[i] ^ 1 << bit]) + whole[i + 1 :]
        for i in range(len(whole))
        for bit in range(8)
    ]
    cuts = [whole[:i] for i in range(len(whole))]
    others = [(tmp_path / "ledger/train/other.done.json").read_bytes(), b"{}", b'{"n": 1}']
    for text in (*flips, *cuts, *others):
        file.write_bytes(text)
        for read in (lambda: ledger.record("train", "k"), lambda: ledger.records("train", ["k"])):
            with pytest.raises(DamagedError, match=facts("k.done.json", "engine verify STORE --fix")):
                read()


def test_a_record_that_is_gone_is_told_from_a_stage_that_was_never_done(tmp_path):
    """By its values, or by what was measured of its model; not while it is under way, or has failed."""
    family = Family(
        "probe", (Coordinate("example", "example", range(3)),), (Variable("x", ("example",), "float32"),)
    )
    ledger = Ledger(tmp_path)
    listed = [{"levels": {"seed": s}, "keys": {"train": f"t{s}", "probe": f"p{s}"}} for s in range(3)]
    write_manifest(tmp_path, "study", {"factors": ["seed"], "cells": listed})
    for seed in (0, 1):
        ledger.commit("train", f"t{seed}", {})
        with StoreWriter(tmp_path).cell(family, f"p{seed}") as sink:
            sink.append({"x": [1.0, 2.0, 3.0]})
            assert open_store(tmp_path)["study"].attrs["cells_complete"] == seed  # under way
        ledger.commit("probe", f"p{seed}", sink.placement)
    StoreWriter(tmp_path).allocate(family, ["p2"])  # a row without values
    assert open_store(tmp_path)["study"].attrs["cells_complete"] == 2
    for stage, key in (("probe", "p1"), ("train", "t1")):
        file = tmp_path / f"ledger/{stage}/{key}.done.json"
        content = file.read_bytes()
        file.unlink()
        with pytest.raises(DamagedError, match=facts(f"{key}.done.json", "missing")):
            open_store(tmp_path)
        (found,) = verify(tmp_path).troubles
        fix(tmp_path, [found])
        assert open_store(tmp_path)["study"].attrs["cells_complete"] == 1
        assert verify(tmp_path).troubles == []
        file.write_bytes(content)
        (tmp_path / f"progress/{key}.json").unlink()
        assert ledger.start(stage, key)
        file.unlink()
        assert open_store(tmp_path)["study"].attrs["cells_complete"] == 1  # it is being done
        ledger.fail(stage, key, {"error": ""})
        assert open_store(tmp_path)["study"].attrs["cells_complete"] == 1
        file.write_bytes(content)
    assert open_store(tmp_path)["study"].attrs["cells_complete"] == 2
