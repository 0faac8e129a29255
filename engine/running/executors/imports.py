"""What processes below this one import: what this one has imported, wherever they start."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[3]  # of the packages
_INSTALLED = {"site-packages", "dist-packages"}  # where each Python looks anyway


def python_environment() -> dict[str, str]:
    """Give the variables by which a Python finds these packages before any folder of its working directory.

    An editable install alone does not: Python takes a folder of the same name for the package.
    """
    variables = {"PYTHONSAFEPATH": "1"}
    if ROOT.name not in _INSTALLED:
        others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        known = [str(ROOT), *(path for path in others if path not in ("", str(ROOT)))]
        variables["PYTHONPATH"] = os.pathsep.join(known)
    return variables


@contextmanager
def same_packages() -> Iterator[None]:
    """Start processes with these variables inside the `with` block."""
    added = python_environment()
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
