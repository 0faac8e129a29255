"""Typed specs: TOML files to a checked experiment and its run matrix.

Names are imported when first used: what `specs.common` has for all packages costs no import of the rest.
"""

from typing import TYPE_CHECKING

from specs.common.lazy_names import lazy_names

if TYPE_CHECKING:
    from specs.errors import Problem, SpecError
    from specs.load import Spec, load_spec
    from specs.matrix import Matrix, resolve
    from specs.reference.schema import json_schema
    from specs.tables.experiment import Experiment

_HOMES = {
    "Experiment": "tables.experiment",
    "Matrix": "matrix",
    "Problem": "errors",
    "Spec": "load",
    "SpecError": "errors",
    "json_schema": "reference.schema",
    "load_spec": "load",
    "resolve": "matrix",
}

__all__ = ["Experiment", "Matrix", "Problem", "Spec", "SpecError", "json_schema", "load_spec", "resolve"]

__getattr__, __dir__ = lazy_names(__name__, {name: f"specs.{home}" for name, home in _HOMES.items()})
