"""The JSON Schema of a spec file, for editors and for other programs that write specs."""

from __future__ import annotations

import copy
from typing import Any

import msgspec

from specs.reference.pages import reference_markdown
from specs.tables.experiment import OVERLAID, Experiment
from specs.toml.describe import named
from specs.toml.known_keys import field_types, tables

__all__ = ["json_schema", "reference_markdown"]


def json_schema() -> dict[str, Any]:
    """A draft 2020-12 schema. What it cannot say (names that must agree, 1 against 1.0) `resolve` checks."""
    (root,), definitions = msgspec.json.schema_components([Experiment], ref_template="#/$defs/{name}")
    definitions = {name: _as_toml(definition) for name, definition in definitions.items()}
    _adapt(definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:ablation-engine:spec",
        "title": "Ablation spec",
        **root,
        "$defs": definitions,
    }


def _as_toml(schema: Any) -> Any:
    """Without null, which TOML lacks, and without unknown keys, which the loader rejects."""
    if isinstance(schema, list):
        return [_as_toml(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    empty: tuple[tuple[str, Any], ...] = (("default", None), ("default", {}), ("default", []))
    # Not all releases of msgspec write empty defaults and names of properties.
    schema = {key: value for key, value in schema.items() if (key, value) not in empty}
    strict = {key: _as_toml(value) for key, value in schema.items() if key != "propertyNames"}
    if {"type": "null"} in strict.get("anyOf", ()):
        others = [option for option in strict.pop("anyOf") if option != {"type": "null"}]
        strict |= others[0] if len(others) == 1 else {"anyOf": others}
    if "properties" in strict:
        strict["additionalProperties"] = False
    return strict


def _adapt(definitions: dict[str, Any]) -> None:
    """What the classes alone do not say."""
    for cls in dict.fromkeys(tables().values()):
        for name, type_ in field_types(cls).items():
            if names := named(type_):
                schema = definitions[cls.__name__]["properties"][name]
                schema = schema.get("items", schema)
                del schema["type"]
                schema["anyOf"] = [
                    {"enum": sorted(names.built_in)},
                    *({"type": "string", "pattern": f"^{start}[A-Za-z0-9_]+$"} for start in names.starts),
                    {"type": "string", "pattern": names.pattern, "description": "Name of a plug-in."},
                ]

    for table in OVERLAID:
        name = tables()[table].__name__
        overlay = copy.deepcopy(definitions[name])
        overlay["title"] = f"{name}Overlay"
        overlay["description"] = f"`[evaluate.{table}]`: keys laid over `[{table}]`."
        overlay.pop("required", None)
        definitions[f"{name}Overlay"] = overlay
        definitions["Evaluate"]["properties"][table] = {
            **definitions["Evaluate"]["properties"][table],
            "$ref": f"#/$defs/{name}Overlay",
        }

    definitions["Factor"] |= {
        "oneOf": [{"required": ["levels"]}, {"required": ["path"]}],
        "dependentRequired": {"path": ["values"], "values": ["path"]},
    }

    # `false` drops a factor of the spec that is extended.
    axes = definitions["Experiment"]["properties"]["factors"]
    axes["additionalProperties"] = {"anyOf": [axes["additionalProperties"], {"const": False}]}

    # A spec that extends another may take any required key from it.
    experiment = definitions["Experiment"]
    whole = ("Model", "Data", "Annotate")
    inner = {name.lower(): {"required": definitions[name].pop("required")} for name in whole}
    experiment["if"] = {"not": {"required": ["extends"]}}
    experiment["then"] = {"required": experiment.pop("required"), "properties": inner}


if __name__ == "__main__":
    import sys

    sys.stdout.write(reference_markdown())
