"""The factors of a manifest and their levels as text: what needs neither xarray nor pandas."""

import json
from typing import Any

from specs.common.names import NOT_APPLICABLE
from store.backend.records import Json


def factor_names(manifest: Json) -> list[str]:
    """Return the manifest's factors in order, then those (such as the seed) only its cells have."""
    in_cells = (name for cell in manifest["cells"] for name in cell["levels"])
    return list(dict.fromkeys([*manifest.get("factors", ()), *in_cells]))


def level_text(level: Any) -> str:
    """Return a level, of a spec or as numpy holds it, as text: itself, "-" for none, else its JSON."""
    if level is None:
        return NOT_APPLICABLE
    level = level.item() if hasattr(level, "item") else level
    return level if isinstance(level, str) else json.dumps(level)
