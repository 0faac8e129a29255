"""`tree.ablation` and `dataset.ablation`: the analyses as methods of what `open_store` returns."""

from collections.abc import Callable
from importlib import import_module
from inspect import signature
from types import MethodType
from typing import Any

import xarray as xr

ANALYSIS = "store.analysis"  # imported at the first use: scipy and statsmodels take two seconds


@xr.register_datatree_accessor("ablation")  # type: ignore[no-untyped-call]
@xr.register_dataset_accessor("ablation")  # type: ignore[no-untyped-call]
class Ablation:
    """The functions of `store.analysis`, their first argument filled in."""

    def __init__(self, data: xr.Dataset | xr.DataTree) -> None:
        self._data = data

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_") or name not in dir(self):
            raise AttributeError(f"no analysis {name!r}; there are {', '.join(dir(self))}")
        function = getattr(import_module(ANALYSIS), name)
        return MethodType(function, self._data)  # completion and help know methods, and leave the data out

    def __repr__(self) -> str:
        analysis = import_module(ANALYSIS)
        lines = ["What an experiment or a dataset of it can be asked (docs/analysis.md):"]
        for name in dir(self):
            function = getattr(analysis, name)
            _, *others = signature(function).parameters.values()
            asked = ", ".join(parameter.name for parameter in others if parameter.default is parameter.empty)
            lines.append(f"  .ablation.{name}({asked or '…'}): {(function.__doc__ or '').splitlines()[0]}")
        return "\n".join(lines)

    def _repr_html_(self) -> str | None:
        shown: str | None = import_module("store.notebook").html_of(self._data)
        return shown

    def __dir__(self) -> list[str]:
        return [name for name in import_module(ANALYSIS).__all__ if name.islower()]
