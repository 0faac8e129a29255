"""A folder as a store's place: files are whole, one of several makes a file, and nothing half is left."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.backend.folder import Folder
from store.backend.location import DOOMED
from store.errors import StoreError

RACERS = 8
NAMES = st.sampled_from(["a", "b", "c/d", "c/e"])
CONTENT = st.binary(max_size=5)
STEPS = st.one_of(
    st.tuples(st.sampled_from(["write", "create"]), NAMES, CONTENT),
    st.tuples(st.just("remove"), NAMES, st.just(b"")),
    st.tuples(st.just("swap"), NAMES, CONTENT),
)


@pytest.fixture
def place(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "store")


@given(st.lists(STEPS, max_size=12))
def test_files_are_as_a_dictionary_would_have_them(tmp_path_factory, steps) -> None:
    place, model = Folder(tmp_path_factory.mktemp("store")), dict[str, bytes]()
    for step, name, content in steps:
        if step == "write":
            place.write(name, content)
            model[name] = content
        elif step == "create":
            assert place.create(name, content) == (name not in model)
            model.setdefault(name, content)
        elif step == "remove":
            place.remove(name)
            model.pop(name, None)
        elif name in model:
            assert not place.swap(name, model[name] + b"!", content)
            assert place.swap(name, model[name], content)
            model[name] = content
        else:
            with pytest.raises(FileNotFoundError):
                place.swap(name, b"", content)
    for name in ("a", "b", "c/d", "c/e"):
        assert place.exists(name) == (name in model)
        assert place.file_sizes([name]) == [len(model[name]) if name in model else None]
        if name not in model:
            with pytest.raises(FileNotFoundError):
                place.read(name)
    assert place.read_all(model) == [place.read(name) for name in model] == list(model.values())
    assert sorted(place.names("c")) == sorted(name[2:] for name in model if name.startswith("c/"))
    assert place.size("") == sum(map(len, model.values()))
    assert {name for name in place.names("") if name != "c"} == model.keys() & {"a", "b"}  # nothing beside


def raced(work) -> list[bool]:
    """What RACERS threads are told that do the same at once."""
    barrier = threading.Barrier(RACERS)

    def one(number: int) -> bool:
        barrier.wait()
        return bool(work(number))

    with ThreadPoolExecutor(RACERS) as pool:
        return list(pool.map(one, range(RACERS)))


def test_of_several_that_create_one_file_one_is_told_so(place: Folder) -> None:
    for turn in range(5):
        won = raced(lambda number, turn=turn: place.create(f"claims/{turn}", b"%d" % number))
        assert won.count(True) == 1 and place.read(f"claims/{turn}") == b"%d" % won.index(True)
    assert len(place.names("claims")) == 5


def test_of_several_that_swap_one_content_one_is_told_so(place: Folder) -> None:
    place.write("count", b"0")

    def add(number: int) -> bool:
        with place.swapping():
            return place.swap("count", b"0", b"%d" % (number + 1))

    won = raced(add)
    assert won.count(True) == 1 and place.read("count") == b"%d" % (won.index(True) + 1)


def test_of_several_that_publish_one_is_told_so_and_no_other_leaves_anything(place: Folder) -> None:
    def publish(number: int) -> bool:
        made = place.scratch() / f"made-{number}.partial"
        made.mkdir()
        (made / "weights").write_bytes(b"%d" % number)
        return place.publish(made, "adapter")

    place.scratch().mkdir()
    won = raced(publish)
    assert won.count(True) == 1
    assert place.names("") == ["adapter"] and place.names("adapter") == ["weights"]
    assert place.read("adapter/weights") == b"%d" % won.index(True)


def test_the_lock_lets_in_one_at_a_time(place: Folder) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        with place.file_lock():
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.005)
            inside.remove(number)

    raced(work)
    assert most == [1] * RACERS


def test_a_held_file_is_told_from_another_of_its_name(place: Folder) -> None:
    assert place.create("claim", b"beat 0")
    hold = place.hold("claim")
    hold.renew(5, b"1")
    assert hold.held() and place.read("claim") == b"beat 1"
    place.remove("claim")
    assert not hold.held()
    assert place.create("claim", b"beat 0")
    assert not hold.held()
    hold.renew(5, b"7")
    assert place.read("claim") == b"beat 0"
    hold.close()


def test_nothing_is_published_over_what_is_there(place: Folder, tmp_path: Path) -> None:
    place.write("result", b"first")
    made = tmp_path / "made"
    made.write_bytes(b"second")
    assert not place.publish(made, "result")
    assert place.read("result") == b"first" and not made.exists()
    place.put_aside("result")
    assert not place.exists("result") and place.read("result.damaged") == b"first"
    made.write_bytes(b"third")
    assert place.publish(made, "result") and place.read("result") == b"third"
    place.put_aside("result")  # of two that were put aside the last is kept
    assert place.read("result.damaged") == b"third"
    for content in (b"a", b"b"):
        place.write("folder/file", content)
        place.put_aside("folder")
    assert place.names("folder.damaged") == ["file"] and place.read("folder.damaged/file") == b"b"
    place.put_aside("nothing")


def test_a_folder_is_removed_as_a_whole_and_a_link_alone(place: Folder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"kept")
    for name in ("group/a", "group/b/c", f"half{DOOMED}/a"):
        place.write(name, b"x")
    (place.root / "link").symlink_to(outside)
    assert place.names("link", follow=False) == [] and place.names("link") == ["file"]
    for name in ("group", f"half{DOOMED}", "link", "nothing"):
        place.remove_all(name)
    assert place.names("") == [] and (outside / "file").read_bytes() == b"kept"


def test_what_a_removal_left_half_is_not_taken_for_the_folder(
    place: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write("group/a", b"x")

    def dies(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", dies)
    with pytest.raises(KeyboardInterrupt):
        place.remove_all("group")
    assert place.names("") == [f"group{DOOMED}"]


def test_only_a_folder_without_a_whole_file_is_pruned(place: Folder) -> None:
    place.write("rows/kept", b"x")
    (place.root / "rows" / ".half.tmp").write_bytes(b"")
    place.prune("rows")
    assert place.names("rows") == ["kept"]
    place.remove("rows/kept")
    place.prune("rows")
    assert not place.exists("rows")


def test_a_failed_write_leaves_the_old_file_alone_and_names_it(
    place: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write("record", b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as raised:
        place.write("record", b"new")
    assert raised.value.filename == str(place.root / "record")
    assert place.names("") == ["record"] and place.read("record") == b"old"


def test_what_is_no_file_is_not_read_as_one(place: Folder) -> None:
    place.write("folder/file", b"x")
    os.mkfifo(place.root / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(OSError):
            place.read(name)
    assert place.file_sizes(["folder", "pipe", "none"]) == [0, 0, None]


def test_a_file_system_without_hard_links_is_named(place: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuses)
    with pytest.raises(StoreError, match=r"record.*hard links"):
        place.create("record", b"x")
    assert place.names("") == []


def test_ages_and_absence(place: Folder) -> None:
    assert place.absence() and place.age("record") == 0
    place.write("record", b"x")
    os.utime(place.root / "record", (time.time() - 100,) * 2)
    assert 99 < place.age("record") < 160 and place.absence() == ""
    assert place.under("a").absolute() == Folder(place.root.resolve() / "a")
    assert "'store'" in Folder(place.root.with_name("stroe")).absence()
    (place.root / "made.1.partial").mkdir()
    assert place.unpublished("") == ["made.1.partial"]
