"""A store on the command line: a folder, or the URL of a place in a bucket."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from engine.cli.parameters import NEW_STORE, STORE
from engine.errors import UsageError
from store.backend.location import Place


def test_a_folder_is_a_path_and_has_to_be_there_to_be_read(tmp_path: Path) -> None:
    assert STORE.convert(str(tmp_path), None, None) == tmp_path
    with pytest.raises(UsageError, match="missing"):
        STORE.convert(str(tmp_path / "missing"), None, None)
    assert NEW_STORE.convert(str(tmp_path / "missing"), None, None) == tmp_path / "missing"


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(click.BadParameter, match="file"):
        STORE.convert(str(tmp_path / "file"), None, None)


@pytest.mark.parametrize("parameter", [STORE, NEW_STORE])
def test_a_url_is_a_place_that_is_not_asked_yet(parameter: click.ParamType) -> None:
    place = parameter.convert("s3://bucket/path", None, None)
    assert isinstance(place, Place) and str(place) == "s3://bucket/path"


def test_a_url_of_another_kind_is_refused_by_name() -> None:
    with pytest.raises(click.BadParameter, match="ftp"):
        STORE.convert("ftp://host/path", None, None)
