"""The ablation engine: from a spec file to a store of results.

`plan`, `execute` and `status` do what the commands of these names do; `load_adapter` gives the trained model
of any cell. Results are read by `store.open_store`. Names are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.api import CellStatus, LoadedModel, execute, load_adapter, plan, status
    from engine.planning.plan import Plan
    from engine.running.cell_runner import Display, Outcome

    __version__: str

_HOMES = {
    "CellStatus": "api",
    "Display": "running.cell_runner",
    "LoadedModel": "api",
    "Outcome": "running.cell_runner",
    "Plan": "planning.plan",
    "execute": "api",
    "load_adapter": "api",
    "plan": "api",
    "status": "api",
}

__all__ = [
    "CellStatus",
    "Display",
    "LoadedModel",
    "Outcome",
    "Plan",
    "__version__",
    "execute",
    "load_adapter",
    "plan",
    "status",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("ablation-engine")
    if name not in _HOMES:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    return getattr(import_module(f"engine.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
