"""The card of an export: a README.md by which people and the hub know what the files hold."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from store.backend.records import Json
from store.ledger.levels import factor_names, level_text

CARD = "README.md"
TABLES = (".parquet", ".csv")


def export_card(name: str, manifest: Json, described: Mapping[str, Any], files: Sequence[Path]) -> str:
    """Write the card of an experiment's export.

    Args:
        name: of the experiment.
        manifest: its factors, cells and spec.
        described: by node, its variables with dims, units and meaning (`variables.json`).
        files: those that were written, beside the card.
    """
    rows = [_row(file.name, described) for file in files]
    return "\n".join(
        [
            "---",
            *_header(files),
            "---",
            "",
            f"# {name}",
            "",
            f"Results of the ablation study `{name}`: {len(manifest['cells']):,} cells, one for each "
            "combination of levels and each seed. Made by "
            "[ablation-engine](https://pypi.org/project/ablation-engine/).",
            "",
            "| factor | levels |",
            "| --- | --- |",
            *(f"| {factor} | {', '.join(_levels(manifest, factor))} |" for factor in factor_names(manifest)),
            "",
            "| file | what a row, or an entry, is of | variables |",
            "| --- | --- | --- |",
            *rows,
            "",
            "`variables.json` has the units and the meaning of each variable, `manifest.json` the spec, the "
            "versions of all packages and the cells.",
            "",
            *_variables(described),
        ]
    )


def _header(files: Sequence[Path]) -> list[str]:
    """Give the metadata by which `datasets` and the hub's viewer read the tables, as YAML."""
    tables = [file for file in files if file.suffix in TABLES]
    lines = ["tags:", "- ablation-engine"]
    if tables:
        lines.append("configs:")
    for file in tables:
        lines += [f"- config_name: {json.dumps(file.stem)}", f"  data_files: {json.dumps(file.name)}"]
    return lines


def _levels(manifest: Json, factor: str) -> list[str]:
    cells = manifest["cells"]
    levels = dict.fromkeys(_cell(level_text(cell["levels"].get(factor))) for cell in cells)
    return list(levels)


def _row(file: str, described: Mapping[str, Any]) -> str:
    """Say what a file holds: NODE.nc, NODE.FORMAT, or NODE.DIM-DIM.FORMAT."""
    stem = file.rpartition(".")[0]
    node = max((title for title in described if stem == title or stem.startswith(f"{title}.")), key=len)
    dims = stem.removeprefix(node).removeprefix(".")
    variables = described[node]["variables"]
    wanted = {"cell", *dims.split("-")} - {""}
    whole = file.endswith(".nc")
    names = [
        variable
        for variable, facts in variables.items()
        if "units" in facts and (whole or {*facts["dims"]} == wanted)
    ]
    of = "cell" if not dims else f"cell, {dims.replace('-', ', ')}"
    return f"| `{file}` | {'all of a stage' if whole else of} | {', '.join(map(_cell, names))} |"


def _variables(described: Mapping[str, Any]) -> list[str]:
    lines = ["| variable | units | meaning |", "| --- | --- | --- |"]
    known: dict[str, str] = {}
    for node in described.values():
        for name, facts in node["variables"].items():
            if "units" in facts and "long_name" in facts:
                known.setdefault(
                    name, f"| {_cell(name)} | {_cell(facts['units'])} | {_cell(facts['long_name'])} |"
                )
    return [*lines, *known.values(), ""]


def _cell(text: str) -> str:
    """Give a text that ends no cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
