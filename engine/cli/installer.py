"""What installs packages into this environment: pip, or uv, whose environments have no pip."""

from __future__ import annotations

import shutil
from importlib import util


def is_uv() -> bool:
    """Tell whether uv installs here: there is no pip, but uv on the path."""
    return util.find_spec("pip") is None and shutil.which("uv") is not None


def pip() -> str:
    """Give the start of a command line for a person."""
    return "uv pip" if is_uv() else "pip"
