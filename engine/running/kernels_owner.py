"""Whether the package `kernels` is this project's, and not Hugging Face's client of the same name."""

from __future__ import annotations

import re
from importlib import metadata, resources
from pathlib import Path

import kernels
from engine.errors import EngineError

OURS = "ablation-engine"


def check_kernels() -> None:
    """Make sure that `kernels` comes from this project, alone; EngineError says what to uninstall.

    Two distributions that are installed into one folder overwrite each other's files, so its place does not
    tell; what installed it does.
    """
    place = Path(str(kernels.__file__)).parent.resolve()
    expected = Path(str(resources.files("engine").joinpath("..", "kernels"))).resolve()
    others = sorted({name for name in _owners() if name.lower().replace("_", "-") != OURS})
    if others or place != expected:
        names = " ".join(others) or "kernels"
        raise EngineError(
            f"the package `kernels` at {place}: expected that of {OURS} alone, found "
            f"{' and '.join(others) or 'another'}; run `pip uninstall {names}`, then install {OURS} again"
        )


def _owners() -> list[str]:
    """Return the distributions that install a top-level package `kernels`."""
    return [found.metadata["Name"] for found in metadata.distributions() if _installs_kernels(found)]


def _installs_kernels(distribution: metadata.Distribution) -> bool:
    """Read what a distribution declares, else its list of files: all packages of all would take a second."""
    if declared := distribution.read_text("top_level.txt"):
        return "kernels" in declared.split()
    return re.search(r"^kernels(/|\.py\b)", distribution.read_text("RECORD") or "", re.MULTILINE) is not None
