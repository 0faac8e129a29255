"""The container files name extras and releases that there are."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.mark.parametrize("name", ["Dockerfile", "apptainer.def"])
def test_extras_and_pins_are_those_of_the_project(name: str) -> None:
    text = (ROOT / "containers" / name).read_text("utf-8")
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", text)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    pins = set((ROOT / "constraints.txt").read_text("utf-8").splitlines())
    assert set(re.findall(r"\b\w+==[\d.]+\b", text)) <= pins
    assert "--constraint constraints.txt" in text
    assert re.findall(r"(?:FROM|From:) python:3\.(\d+)", text)[0] in ("11", "12", "13")
