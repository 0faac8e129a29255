"""Fingerprints of files and folders: they follow names and contents, and name what fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine import fingerprints
from engine.fingerprints import fingerprint_path


def test_names_and_contents_count_and_nothing_else(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        (folder / "inner").mkdir(parents=True)
        (folder / "a.txt").write_text("one")
        (folder / "inner" / "b.txt").write_text("two")
    expected = fingerprint_path(first)
    assert len(expected) == 32 and fingerprint_path(second) == expected
    os.utime(second / "a.txt", (1, 1))
    (second / ".hidden").write_text("not counted")
    assert fingerprint_path(second) == expected
    (second / "a.txt").write_text("One")
    assert fingerprint_path(second) != expected
    (second / "a.txt").write_text("one")
    (second / "a.txt").rename(second / "c.txt")
    assert fingerprint_path(second) != expected


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "data.txt"
    file.write_text("one")
    expected = fingerprint_path(file)
    monkeypatch.setattr(fingerprints, "hash_file", lambda path: pytest.fail(f"{path} was read"))
    assert fingerprint_path(file) == expected
    file.write_text("other")
    with pytest.raises(pytest.fail.Exception, match=r"data\.txt was read"):
        fingerprint_path(file)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "data.txt"
    file.write_text("one")

    def fail(path: Path) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(fingerprints, "hash_file", fail)
    with pytest.raises(OSError, match=r"Input/output error: '.*data\.txt'"):
        fingerprint_path(file)
