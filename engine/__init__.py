"""The ablation engine: from a spec file to a store of results.

`plan`, `execute` and `status` do what the commands of these names do; `load_adapter` gives the trained model
of any cell. Results are read by `store.open_store`. Names are imported when they are first used.
"""

from typing import TYPE_CHECKING, Any

from engine.own_packages import check_own_packages

check_own_packages()

from specs.common.lazy_names import lazy_names  # noqa: E402

if TYPE_CHECKING:
    from engine.api import CellStatus, LoadedModel, execute, load_adapter, plan, status
    from engine.planning.plan import Plan
    from engine.running.display import Display
    from engine.running.outcome import Outcome

    __version__: str

_HOMES = {
    "CellStatus": "api",
    "Display": "running.display",
    "LoadedModel": "api",
    "Outcome": "running.outcome",
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


_lazy, __dir__ = lazy_names(
    __name__, {"__version__": "", **{name: f"engine.{home}" for name, home in _HOMES.items()}}
)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("ablation-engine")
    return _lazy(name)
