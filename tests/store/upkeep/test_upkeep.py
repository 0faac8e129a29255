"""What keeps a store in order: garbage, verification, and the version of its layout."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from children import assert_same, contents, run, start
from commands import engine
from facts import facts, told
from faults import file_operations
from small_study import small_spec
from written_cells import assert_reads, listed, write

import store
from store import Ledger, StoreError, open_store
from store.backend.locate import place_of
from store.backend.records import read_json, write_json
from store.errors import DamagedError
from store.upkeep.garbage import delete_garbage, find_garbage
from store.upkeep.mend import fix
from store.upkeep.verify import verify


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rated_file: Path
) -> tuple[Path, Path]:
    """A spec of four cells and its finished store."""
    folder = tmp_path_factory.mktemp("finished")
    spec = small_spec(folder, tiny_model, rated_file)
    run(folder, "execute", spec)
    return spec, folder / "store"


@pytest.fixture
def copy(finished: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """The finished store once more, to be spoiled."""
    return finished[0], Path(shutil.copytree(finished[1], tmp_path / "store"))


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def arrays(root: Path) -> dict[str, object]:
    return {name: value for name, value in contents(root).items() if name.startswith("/")}


@pytest.mark.parametrize("layout", [1, 4])
def test_a_store_of_another_layout_is_refused_by_all(copy: tuple[Path, Path], layout: int) -> None:
    spec, root = copy
    assert json.loads((root / "store.json").read_text())["layout"] == 3
    write_json(place_of(root), "store.json", {"layout": layout})
    for command in (["status", root], ["results", root], ["gc", root], ["verify", root]):
        assert f"a store of layout {layout}" in engine(*command, code=1).output
    for command in ("plan", "execute"):
        assert told(engine(command, spec, "--store", root, code=1).output, "install")
    with pytest.raises(StoreError, match="this version reads layout 3"):
        open_store(root)


def test_a_store_that_has_lost_its_layout_is_damaged_and_mended(copy: tuple[Path, Path]) -> None:
    _, root = copy
    (root / "store.json").unlink()
    with pytest.raises(DamagedError, match=facts("store.json", "missing", "engine verify STORE --fix")):
        open_store(root)
    assert "store.json: written again, layout 3" in engine("verify", root, "--fix", code=1).output
    assert not verify(root).troubles and open_store(root)["small"].attrs["cells_complete"] == 4


def test_a_whole_store_has_no_garbage_and_no_problems(finished: tuple[Path, Path]) -> None:
    before = files(finished[1])
    assert engine("gc", finished[1]).output == "garbage: 0 items, 0 B\n"
    assert engine("gc", finished[1], "--delete").output == "deleted: 0 items, 0 B\n"
    assert engine("verify", finished[1]).output == "14 done stages read, 0 problems\n"
    assert files(finished[1]) == before


def test_what_no_spec_needs_any_more_is_listed_then_deleted(copy: tuple[Path, Path], tmp_path: Path) -> None:
    spec, root = copy
    whole = files(root)
    # One seed less, as the same experiment: half of the trainings and all behind them lose their name.
    engine("execute", spec, "--store", root, "--set", "seeds=[1]")
    kept = arrays(root)
    listed = engine("gc", root).output
    assert listed.count("no experiment names it") == 2 * (
        1 + 3 + 3
    )  # folder; records and rows of train, evaluate, probe
    assert files(root).keys() >= whole.keys()  # a dry run
    assert "garbage: 0 items" in engine("gc", root, "--keep-spec", spec).output
    assert "deleted: 14 items" in engine("gc", root, "--delete").output
    assert_same(arrays(root), kept)
    assert "garbage: 0 items" in engine("gc", root).output and not verify(root).troubles
    run(tmp_path, "execute", spec, "--store", root)
    trained = {name: content for name, content in files(root).items() if name.endswith(".safetensors")}
    assert trained == {name: whole[name] for name in trained} and len(trained) == 4


def test_scaffolding_and_strays_are_garbage_once_they_are_old(copy: tuple[Path, Path]) -> None:
    _, root = copy
    (key, *_) = sorted(Ledger(root).done("train"))
    stray = [
        root / f"train/{key}/adapter.1a2b.partial",
        root / "ledger/train/.x.done.json.77.tmp",
        next(root.glob("results.zarr/probe/*/float32-example-layer-position")) / "c.0.0.0.0.0.77.partial",
    ]
    for path in stray:
        path.write_bytes(b"torn")
    checkpoint = root / f"train/{key}/checkpoints/checkpoint-2"
    checkpoint.mkdir(parents=True)
    (checkpoint / "optimizer.pt").write_bytes(b"1234")
    assert [garbage.why for garbage in find_garbage(root)] == ["its training is finished"]
    for path in stray:
        os.utime(path, (0, time.time() - 7200))
    assert sorted(garbage.bytes for garbage in find_garbage(root)) == [4, 4, 4, 4]
    delete_garbage(root)
    assert not any(path.exists() for path in (*stray, checkpoint.parent))


def test_halves_of_a_groups_metadata_are_garbage_once_they_are_old(copy: tuple[Path, Path]) -> None:
    """Beside the group's own `zarr.json`, beside an array's, and above them; a new half is left alone."""
    _, root = copy
    group = next(root.glob("results.zarr/probe/*/zarr.json"))
    array = next(root.glob("results.zarr/probe/*/float32-*/zarr.json"))
    strays = [file.with_name(f"zarr.json.{n}.partial") for n, file in enumerate([group, array])]
    strays += [root / "results.zarr/zarr.json.2.partial", group.with_name(".zarr.json.3.tmp")]
    for path in strays:
        path.write_bytes(b"{")
    assert find_garbage(root) == []
    for path in strays:
        os.utime(path, (0, time.time() - 7200))
    assert {root / name for garbage in delete_garbage(root) for name in garbage.names} == set(strays)
    assert group.is_file() and array.is_file() and not verify(root).troubles


@pytest.mark.parametrize("event", [2, 9, 17, 31])
def test_a_deletion_that_is_killed_leaves_whole_cells_and_is_finished_by_the_next(
    copy: tuple[Path, Path], tmp_path: Path, event: int
) -> None:
    """SIGKILL before a drawn file operation; what is kept is as before, and the former spec runs again."""
    spec, root = copy
    before = contents(root)
    engine("execute", spec, "--store", root, "--set", "seeds=[1]")
    kept = arrays(root)
    child = start(tmp_path, "gc", root, "--delete", before_event=event)
    child.join(60)
    assert child.exitcode == -signal.SIGKILL, (tmp_path / "output").read_text()
    assert_same(arrays(root), kept)
    assert not verify(root).troubles
    if event % 2:  # without a second deletion, what is half gone is made again
        run(tmp_path, "execute", spec, "--store", root)
        assert_same(contents(root), before)
    else:
        delete_garbage(root)
        assert find_garbage(root) == [] and not list(root.glob("**/*.garbage"))
        assert_same(arrays(root), kept)
    assert not verify(root).troubles


def test_a_store_without_experiments_is_not_swept_away(copy: tuple[Path, Path]) -> None:
    _, root = copy
    (root / "experiments/small.json").unlink()
    assert "no experiment is left" in engine("gc", root, "--delete", code=1).output


def test_nothing_is_deleted_while_a_process_works(copy: tuple[Path, Path]) -> None:
    _, root = copy
    ledger = Ledger(root)
    assert ledger.start("train", "0" * 32)
    output = engine("gc", "--delete", root, code=1).output
    assert told(output, "in use", f"train {'0' * 32}")
    ledger.release("train", "0" * 32)
    delete_garbage(root)


def test_every_damage_is_named_and_mended(copy: tuple[Path, Path], tmp_path: Path) -> None:
    spec, root = copy
    expected = contents(root)
    ledger = Ledger(root)
    trained, evaluated, probed = (sorted(ledger.done(stage)) for stage in ("train", "evaluate", "probe"))
    (data,) = ledger.done("data")
    row = ledger.record("probe", probed[0])["row"]
    chunks = root.glob(f"results.zarr/probe/*/float32-example-layer-position/c.{row}.*")
    for path in (next(chunks), root / f"train/{trained[0]}/adapter/adapter_model.safetensors"):
        spoiled = bytearray(path.read_bytes())
        spoiled[-30] ^= 1  # of a chunk's compressed values, of a weight: no header tells
        path.write_bytes(spoiled)
    row = ledger.record("evaluate", evaluated[1])["row"]
    next(root.glob(f"results.zarr/evaluate/*/float32-*/c.{row}.*")).unlink()
    (root / f"ledger/probe/{probed[1]}.done.json").write_text("{")
    shutil.rmtree(root / f"data/{data}")
    (root / f"train/{trained[1]}/adapter/adapter_config.json").unlink()

    output = engine("verify", root, code=1).output
    for message in (
        f"probe {probed[0]}: ", "cannot be read", f"evaluate {evaluated[1]}: ", "chunk files, expected",
        f"probe {probed[1]}: ", "not a JSON record", f"data {data}: ", "examples.jsonl: missing",
        f"{trained[0]}/adapter/adapter_model.safetensors: its content has changed",
        f"{trained[1]}/adapter/adapter_config.json: missing", "6 problems",
    ):  # fmt: skip
        assert message in output, message
    assert output.count("--fix") == 6
    assert "to be done again" in engine("verify", root, "--fix", code=1).output
    assert (root / f"train/{trained[0]}/adapter.damaged").is_dir()
    run(tmp_path, "execute", spec, "--store", root)
    assert_same(contents(root), expected)
    assert engine("verify", root).output.endswith("14 done stages read, 0 problems\n")


def test_reading_commands_work_on_a_read_only_store(copy: tuple[Path, Path], tmp_path: Path) -> None:
    spec, root = copy
    mount = [["mount", "--bind", root, root], ["mount", "-o", "remount,ro,bind", root]]
    if any(subprocess.run(command, capture_output=True).returncode for command in mount):
        pytest.skip("mounting is not permitted here")
    try:
        for command in (["status", root], ["gc", root], ["verify", root], ["plan", spec, "--store", root]):
            engine(*command)
        for command in (["results", root], ["execute", spec, "--store", root]):
            assert "Read-only file system" in engine(*command).output  # of the figure, which is not kept
        engine("report", root, "-o", tmp_path / "page.html")
        engine("export", root, "--to", "csv", "-o", tmp_path / "out")
        for command in (["report", root], ["export", root, "--to", "csv"]):
            output = engine(*command, code=1).output
            assert output.startswith("error: ") and "-o" in output and output.count("\n") == 1
    finally:
        subprocess.run(["umount", "-l", root], check=True)


def test_a_data_file_that_is_gone_takes_no_results_along(
    copy: tuple[Path, Path],
    tmp_path: Path,
    tiny_model: Path,
    rated_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither their names, nor what can still be done with the examples that the store holds."""
    root, data = copy[1], Path(shutil.copy(rated_file, tmp_path / "rated.jsonl"))
    spec = small_spec(tmp_path, tiny_model, data)
    assert "Nothing to do: 4 cells" in engine("execute", spec).output  # by content, the same data
    expected, named = contents(root), (root / "experiments/small.json").read_bytes()
    data.unlink()
    assert "not there any more" in engine("plan", spec).output
    for _ in range(2):
        assert "Nothing to do: 4 cells" in engine("execute", spec).output
    assert (root / "experiments/small.json").read_bytes() == named
    assert "garbage: 0 items" in engine("gc", root).output
    assert_same(contents(root), expected)
    assert "4 pending" in engine("plan", spec, "--set", "probe.top_k=1").output
    run(tmp_path, "execute", spec, "--set", "probe.top_k=1")
    output = engine("execute", spec, "--store", tmp_path / "new", code=1).output
    assert told(output, "data.source", f'found "{data}", which is no file or folder')
    assert told(output, "finished results")
    data.write_bytes(rated_file.read_bytes().replace(b"message 1", b"message x"))
    with monkeypatch.context() as patch:
        patch.setattr("engine.cli.session.run", lambda *_, **__: 0)
        for command in ("plan", "execute"):
            output = " ".join(engine(command, spec, "--set", "probe.top_k=1").output.split())
            assert told(output, "warning", "data.source", str(data), "4 finished cells")
            assert "they stay in the store" in output
    data.unlink()
    # A manifest of an older version does not say what its files held.
    manifest = read_json(place_of(root), "experiments/small.json")
    del manifest["files"]
    write_json(place_of(root), "experiments/small.json", manifest)
    named = (root / "experiments/small.json").read_bytes()
    output = engine("execute", spec, code=2).output
    assert told(
        output, "data.source", f'found "{data}", which is no file or folder', "4 finished cells", "stay"
    )
    assert (root / "experiments/small.json").read_bytes() == named


def test_damaged_examples_are_found_by_the_stage_that_reads_them(
    copy: tuple[Path, Path], tmp_path: Path
) -> None:
    spec, root = copy
    (file,) = root.glob("data/*/examples.jsonl")
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"message 1", b"message 2"))
    more = ("execute", spec, "--store", root, "--set", "probe.top_k=1")
    child = start(tmp_path, *more)
    child.join(300)
    output = (tmp_path / "output").read_text()
    assert child.exitcode == 1 and told(output, "examples.jsonl", "changed")
    run(tmp_path, *more, "--retry-failed")
    assert file.read_bytes() == whole
    assert "0 problems" in engine("verify", root).output


def test_a_damaged_manifest_is_put_aside_and_gc_waits_for_its_successor(copy: tuple[Path, Path]) -> None:
    spec, root = copy
    expected = contents(root)
    file = root / "experiments/small.json"
    file.write_bytes(file.read_bytes()[:-40])
    assert "not a manifest" in engine("verify", root, "--fix", code=1).output
    assert told(engine("gc", root, "--delete", code=1).output, "damaged manifest")
    assert told(engine("results", root, code=1).output, "no experiment")
    engine("execute", spec, "--store", root)
    assert "garbage: 0 items" in engine("gc", root).output and not verify(root).troubles
    assert_same(contents(root), expected)


def test_fixing_leaves_alone_what_another_process_holds(copy: tuple[Path, Path]) -> None:
    _, root = copy
    (key, *_) = Ledger(root).done("evaluate")
    (root / f"ledger/evaluate/{key}.done.json").write_text("{")
    holder = Ledger(root)
    assert holder.start("evaluate", key)
    (said,) = fix(root, verify(root).troubles)
    assert told(said, "another process")
    holder.release("evaluate", key)


def test_a_row_that_nobody_finished_is_a_note(copy: tuple[Path, Path]) -> None:
    _, root = copy
    (key, *_) = Ledger(root).done("probe")
    Ledger(root).clear("probe", key)
    found = verify(root)
    assert not found.troubles and told(found.notes[0], "1 rows", key)


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "", ".."])
def test_no_name_in_a_store_is_a_path(tmp_path: Path, name: str) -> None:
    ledger = Ledger(tmp_path / "store")
    with pytest.raises(StoreError, match="no path"):
        ledger.record("train", name)
    with pytest.raises(StoreError, match="no path"):
        ledger.start(name, "key")
    with pytest.raises(StoreError, match="expected letters"):
        store.write_manifest(tmp_path / "store", name, {"cells": []})
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("array", ["float32-example-layer", "string-example"])
def test_chunks_of_another_cell_are_found(tmp_path: Path, array: str) -> None:
    for number in range(2):
        write(tmp_path, f"k{number}", number)
    listed(tmp_path, 2)
    assert not verify(tmp_path).troubles
    first, second = (sorted(tmp_path.glob(f"results.zarr/probe/*/{array}/c.{row}.*"))[0] for row in range(2))
    first.write_bytes(second.read_bytes())
    (trouble,) = verify(tmp_path).troubles
    assert (trouble.key, trouble.mend) == ("k0", "again")
    assert told(trouble.message, "row 0", "files")


def test_files_that_are_nobodys_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path, "k0", 0)
    listed(tmp_path, 1)
    for name in (
        "ledger/.DS_Store", "ledger/notes.txt", "ledger/probe/k0 (1).done.json", "results.zarr/notes",
        "results.zarr/.DS_Store", "results.zarr/probe/a b", "families/.DS_Store", "families/probe/a b.json",
    ):  # fmt: skip
        (tmp_path / name).write_bytes(b"\0\0\0\1")
    assert not verify(tmp_path).troubles
    assert not find_garbage(tmp_path)
    assert_reads(tmp_path, range(1))


@pytest.mark.parametrize("stage", ["data", "base", "train", "evaluate"])
def test_a_done_record_that_is_gone_is_told_by_every_reader(copy: tuple[Path, Path], stage: str) -> None:
    _, root = copy
    record = sorted(root.glob(f"ledger/{stage}/*.done.json"))[0]
    record.unlink()
    for command in (["status", root], ["verify", root], *([["results", root]] if stage != "data" else [])):
        output = engine(*command, code=1).output
        assert record.name in output, command


FOREIGN = (
    "experiments/small copy.json", "experiments/small (1).json", "experiments/notes.json", "notes.txt",
    "claims/.DS_Store", "claims/train/.DS_Store", "data/foo.txt", "families/notes/x.json",
    "families/probe/x.json", "history/.DS_Store", "history/small/000001 copy.json", "history/small/note.json",
    "ledger/my notes/x", "ledger/train/foo.json", "lens/foo", "progress/a b.json", "progress/foo.json",
    "results.zarr/foo/zarr.json", "results.zarr/probe/foo/zarr.json", "train/foo/notes.txt",
    "vocabulary/foo.json",
)  # fmt: skip


def test_what_people_put_into_a_store_stops_nothing(copy: tuple[Path, Path]) -> None:
    """Copies, too; they are neither garbage nor problems, and nothing is done to them."""
    spec, root = copy
    manifest = (root / "experiments/small.json").read_bytes()
    for path in (root / name for name in FOREIGN):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(manifest if path.name.startswith("small") else b'{"a": 1}')
        os.utime(path, (0, 0))
    before = {name: (root / name).read_bytes() for name in FOREIGN}
    for words in (["status", root], ["results", root], ["plan", spec, "--store", root]):
        assert "copy" not in engine(*words).output
    assert "deleted: 0 items" in engine("gc", root, "--delete").output
    output = engine("verify", root, "--fix").output
    # A folder in which nothing is the store's counts once; claims are nobody's results.
    assert told(output, f"{len(FOREIGN) - 2} files or folders")
    assert "14 done stages read, 0 problems" in output
    assert {name: (root / name).read_bytes() for name in FOREIGN} == before


def test_what_nothing_can_be_read_of_and_nothing_needs_is_removed(tmp_path: Path) -> None:
    write(tmp_path, "k0", 0)
    listed(tmp_path, 1)
    record, group = tmp_path / f"families/probe/{'0' * 16}.json", tmp_path / f"results.zarr/probe/{'1' * 16}"
    group.mkdir()
    for path in (record, group / "zarr.json"):
        path.write_text("{}")
    found = verify(tmp_path).troubles
    assert [(own.key, own.mend) for own in found] == [("0" * 16, "remove"), ("1" * 16, "remove")]
    fix(tmp_path, found)
    assert not verify(tmp_path).troubles and not record.exists() and not group.exists()
    assert_reads(tmp_path, range(1))


def test_what_an_error_left_half_made_is_no_problem(tmp_path: Path) -> None:
    """At every file operation by which a stage begins and writes: no damage, and the next writer goes on."""
    listed(tmp_path / "counted", 1)
    with file_operations(tmp_path / "counted") as counted:
        write(tmp_path / "counted", "k0", 0)
    for at in range(1, counted.count + 1, 3):
        root = tmp_path / str(at)
        listed(root, 1)
        with file_operations(root, at) as fault, suppress(OSError, StoreError):
            write(root, "k0", 0)
        found = verify(root)
        assert not found.troubles and not any("not the store's" in note for note in found.notes), fault.what
        if not Ledger(root).has("probe", "k0"):
            write(root, "k0", 0)
        assert_reads(root, range(1))
        assert not verify(root).troubles, fault.what


@pytest.mark.timeout(60)
def test_a_pipe_in_a_record_s_place_is_told_and_waited_for_by_nobody(copy: tuple[Path, Path]) -> None:
    _, root = copy
    record = sorted(root.glob("ledger/evaluate/*.done.json"))[0]
    record.unlink()
    os.mkfifo(record)
    for command in (["results", root], ["verify", root]):
        assert record.name in engine(*command, code=1).output, command


def test_a_store_that_has_lost_all_its_arrays_is_mended_by_one_fix(copy: tuple[Path, Path]) -> None:
    spec, root = copy
    expected = arrays(root)
    shutil.rmtree(root / "results.zarr")
    engine("verify", root, "--fix", code=1)
    engine("execute", spec, "--store", root)
    assert "0 problems" in engine("verify", root).output
    assert_same(arrays(root), expected)


def test_a_store_that_has_lost_its_ledger_is_not_called_pending(copy: tuple[Path, Path]) -> None:
    _, root = copy
    shutil.rmtree(root / "ledger")
    assert told(engine("status", root, code=1).output, "missing")
