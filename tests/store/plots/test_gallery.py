"""The gallery draws every figure, and its page is what `make gallery` writes."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from types import ModuleType

import pytest

from store import plots

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def gallery() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gallery", ROOT / "docs" / "gallery" / "make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_figure_is_in_the_gallery_and_the_page_is_up_to_date(
    gallery: ModuleType, tmp_path: Path
) -> None:
    figures = {name for name in plots.__all__ if inspect.isfunction(getattr(plots, name))} - {"save"}
    assert set(gallery.CODE) == figures
    images = tmp_path / "images" / "gallery"
    gallery.main(tmp_path / "gallery.md", images)
    assert (tmp_path / "gallery.md").read_text() == gallery.PAGE.read_text(), "run `make gallery`"
    assert {file.name for file in images.iterdir()} == {file.name for file in gallery.IMAGES.iterdir()}
    assert all(b"<svg" in file.read_bytes() for file in images.iterdir())
