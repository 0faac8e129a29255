"""Packages whose names are imported when they are first used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

LazyNames = tuple[Callable[[str], Any], Callable[[], list[str]]]


def lazy_names(package: str, homes: Mapping[str, str]) -> LazyNames:
    """Return `__getattr__` and `__dir__` of a package.

    Args:
        package: its name.
        homes: the full name of the module that has each lazy name.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return get, public_names(package)


def public_names(package: str) -> Callable[[], list[str]]:
    """Return `__dir__` of a package: what it exports, and none of the modules and helpers behind that."""

    def names() -> list[str]:
        here = vars(sys.modules[package])
        return sorted({*here["__all__"], *(name for name in here if name.startswith("__"))})

    return names
