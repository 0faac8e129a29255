"""The reference of all keys, `docs/spec.md`, from the typed spec: `python -m specs.reference.schema`."""

from __future__ import annotations

import re
from typing import Any

import attrs

from specs.reference.introduction import INTRODUCTION
from specs.tables.analysis import Assumed
from specs.tables.annotate import Annotator, RatedExample, Strategy
from specs.tables.design import Contrast, Factor
from specs.tables.experiment import OVERLAID, TABLE_STAGES, Experiment
from specs.tables.interventions import Intervention
from specs.tables.probe import PositionRange
from specs.toml.convert import unstructure
from specs.toml.describe import expected, split_annotated, value
from specs.toml.known_keys import field_types, table_class

# Tables that stand in an array or under a name of the user's choice.
_REPEATED: tuple[tuple[str, type], ...] = (
    ("[annotate.annotators]", Annotator),
    ("[annotate.strategies]", Strategy),
    ("[annotate.strategies.examples]", RatedExample),
    ("factors.NAME", Factor),
    ("[contrasts]", Contrast),
    ("analysis.assumed.OUTCOME", Assumed),
    ("[interventions]", Intervention),
    ("[probe.positions]", PositionRange),
)
_HEADER = ("Key", "Value", "Default", "Meaning")


def reference_markdown() -> str:
    """The whole page."""
    parts = [INTRODUCTION.strip(), "## All keys", _KEY_NOTE, *_section("", Experiment)]
    for name, type_ in field_types(Experiment).items():
        cls = table_class(type_)
        if cls is not None:
            parts += _table(name, cls)
    for heading, cls in _REPEATED:
        parts += _section(heading, cls)
    return "\n\n".join(parts) + "\n"


_KEY_NOTE = """\
*Read by* names the stages whose result the key can change: a new value re-runs these stages, and those
that consume them, and nothing else. Where it says *none*, the key only says how to run. Bounds and types
are strict: `"8"` is no integer, `8.0` is no integer, `true` is no number; an integer may stand for a
number. A key without a default is left out to leave it unset; TOML has no null."""


def _table(heading: str, cls: type) -> list[str]:
    """The section of a table and of the tables in it; `evaluate.data` has the keys of `data`, say."""
    parts = _section(heading, cls)
    for name, type_ in field_types(cls).items():
        inner = table_class(type_)
        if inner is not None and not (heading == "evaluate" and name in OVERLAID):
            parts += _table(f"{heading}.{name}", inner)
    return parts


def _section(heading: str, cls: type) -> list[str]:
    title = f"### `[{heading}]`" if heading else "### Top level"
    _, _, summary = (cls.__doc__ or "").partition(": ")
    stages = TABLE_STAGES.get(heading.partition(".")[0])
    header = (*_HEADER, "Read by") if stages else _HEADER
    lines = [_row(header), _row("---" for _ in header)]
    types = field_types(cls)
    for field in attrs.fields(cls):
        type_ = types[field.name]
        if heading or not (table_class(type_) or field.name in ("factors", "contrasts", "interventions")):
            lines.append(_row(_cells(heading, field, type_, stages)))
    text = [summary[:1].upper() + summary[1:]] if summary and heading else []
    return [title, *text, "\n".join(lines)]


def _cells(
    heading: str, field: attrs.Attribute[Any], type_: Any, stages: tuple[str, ...] | None
) -> list[str]:
    _, metas = split_annotated(type_)
    meaning = " ".join(meta.description for meta in metas if meta.description)
    pattern = re.compile(r"(?<=matching )(.*)$")  # Markdown would take its brackets for a link
    cells = [f"`{field.name}`", pattern.sub(r"`\1`", expected(type_)), _default(field), meaning]
    if stages is None:
        return cells
    if table_class(type_) is not None:
        inner = field.name if field.name in OVERLAID else f"{heading}.{field.name}"
        return [*cells[:2], "", meaning, f"see `[{inner}]`"]
    return [*cells, ", ".join(field.metadata.get("stages", stages)) or "none"]


def _default(field: attrs.Attribute[Any]) -> str:
    default: Any = field.default
    if default is attrs.NOTHING:
        return "required"
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        default = default.factory()
    return "" if default is None else f"`{_toml(default)}`"


def _toml(default: Any) -> str:
    if attrs.has(type(default)):
        default = unstructure(default)
    if isinstance(default, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in default.items()) + "}"
    if isinstance(default, list):
        return "[" + ", ".join(map(_toml, default)) + "]"
    return value(default)


def _row(cells: Any) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
