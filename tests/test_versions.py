"""The oldest releases are those that are tested, and no release is ruled out that is not known to break."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
INSTALLED = ("cloud", "demo", "ray", "slurm", "tensorboard", "test", "triton")  # by `make test-oldest`
REQUIRED = [
    requirement
    for text in [*PROJECT["dependencies"], *(text for extra in INSTALLED for text in EXTRAS[extra])]
    if (requirement := Requirement(text)).name != PROJECT["name"]
]


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(file: str) -> dict[str, Version]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / file).read_text().splitlines())
    pairs = (line.partition("==") for line in lines if line)
    return {plain(name): Version(version) for name, _, version in pairs}


@pytest.mark.parametrize("requirement", REQUIRED, ids=lambda requirement: requirement.name)
def test_the_lower_bound_is_the_release_that_is_tested(requirement):
    (lower,) = [part for part in requirement.specifier if part.operator == ">="]
    assert pins("constraints-oldest.txt")[plain(requirement.name)] == Version(lower.version)


def test_upper_bounds_are_exceptions():
    """Each one with its reason beside it in pyproject.toml."""
    bounded = [r.name for r in REQUIRED if any(part.operator != ">=" for part in r.specifier)]
    assert bounded == ["transformers"]


def test_what_is_installed_here_is_allowed():
    for requirement in REQUIRED:
        if requirement.marker is None or requirement.marker.evaluate():
            assert metadata.version(requirement.name) in requirement.specifier, requirement.name
