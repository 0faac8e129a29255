"""The lines of a run as one Markdown page."""

from __future__ import annotations

from itertools import groupby
from typing import Any


def page(lines: list[dict[str, Any]], title: str) -> str:
    """Give the page: a table per step and set of columns, then the errors in full."""
    parts = [f"# {title}"]
    steps = list(dict.fromkeys(line["step"] for line in lines))
    for step in steps:
        own = [line for line in lines if line["step"] == step]
        parts.append(f"## {step}")
        for columns, alike in groupby(own, key=lambda line: tuple(line.get("values", {}))):
            parts.append(_table(columns, list(alike)))
    wrong = [line for line in lines if line["status"] not in ("ok", "skipped")]
    parts.append(f"## {len(wrong)} of {len(lines)} items failed" if wrong else "## No item failed")
    for line in wrong:
        shown = line.get("error") or "a bound was broken: see its row"
        parts.append(f"{line['step']}, {line['item']}: {line['status']}\n\n```text\n{shown}\n```")
    return "\n\n".join(parts) + "\n"


def _table(columns: tuple[str, ...], lines: list[dict[str, Any]]) -> str:
    heads = ["item", "status", "seconds", *columns]
    reasons = any(line["status"] == "skipped" for line in lines)
    rows = [heads + ["why"] * reasons, ["---"] * (len(heads) + reasons)]
    for line in lines:
        values = [_shown(line["values"][column]) for column in columns]
        why = [line.get("error", "") if line["status"] == "skipped" else ""] * reasons
        rows.append([line["item"], line["status"], _shown(line["seconds"]), *values, *why])
    return "\n".join("| " + " | ".join(map(_cell, row)) + " |" for row in rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "NO", None: ""}[value]
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(entry)}" for key, entry in value.items())
    return str(value)
