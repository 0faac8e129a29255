"""Whether `specs` and `store` are those of this project, and not a folder or module of the current folder."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

_HOME = Path(__file__).parents[1]


def check_own_packages() -> None:
    """Raise ImportError where Python finds something else by a name that this project has taken."""
    for name in ("specs", "store"):
        found = find_spec(name)
        if found is None:
            continue
        places = [found.origin] if found.origin else [*(found.submodule_search_locations or [])]
        if not any(Path(place).resolve().is_relative_to((_HOME / name).resolve()) for place in places):
            raise ImportError(
                f"`{name}` is {places[0] if places else 'elsewhere'}; expected that of ablation-engine, "
                f"{_HOME / name}: rename the former, or start Python in another folder"
            )
