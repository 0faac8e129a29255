"""Typed specs: TOML files to a checked experiment and its run matrix."""

from typing import Any

from specs.errors import Problem, SpecError
from specs.load import Spec, load_spec
from specs.matrix import Matrix, resolve
from specs.tables.experiment import Experiment

__all__ = ["Experiment", "Matrix", "Problem", "Spec", "SpecError", "json_schema", "load_spec", "resolve"]


def __getattr__(name: str) -> Any:
    if name == "json_schema":
        from specs.reference.schema import json_schema

        return json_schema
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
