"""What a person and a program see: tables that fit, JSON and CSV that stay, specs that name their store."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from commands import command, engine
from facts import told
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from rich.cells import cell_len

from engine.cli.grids import Column, Grid, varying
from engine.cli.output_schemas import SCHEMAS, schema_of
from engine.cli.results import results_tables
from engine.terminal import Terminal

FOUR = """
[factors.learning-rate]
path = "train.lr"
values = [1e-4, 5e-4]

[factors.scaling-of-the-adapter]
path = "lora.alpha"
values = [8.0, 32.0]
only_when = { target = "label" }

[factors.wording.levels]
"plain and simple" = {}
"with a question that is long" = { prompt.template = "{response}\\nHow {dimension}? {labels}:" }
"""


def drawn(grid: Grid, width: int) -> str:
    file = io.StringIO()
    Terminal(file=file, width=width).print(grid)
    return file.getvalue()


@given(
    st.lists(st.text("abc déf", min_size=1, max_size=30), min_size=1, max_size=3),
    st.lists(st.integers(0, 10**9).map("{:,}".format), min_size=1, max_size=9),
    st.integers(60, 160),
)
def test_no_width_cuts_a_number(names: list[str], numbers: list[str], width: int) -> None:
    grid = Grid.of("title", [f"name {at}" for at in range(len(names))], [f"number {n}" for n in numbers])
    grid.add(*names, *numbers)
    lines = drawn(grid, width).splitlines()
    assert all(cell_len(line) <= width for line in lines)
    cells = [cell.strip() for line in lines for cell in re.split("[│┃]", line)]
    for number in numbers:
        assert number in cells
    for name in names:  # whole, if on several lines, in the part of each number
        letters = "".join(cells).replace(" ", "")
        assert all(letter in letters for letter in name.replace(" ", ""))


def test_columns_without_room_stand_below_with_the_names_of_their_rows() -> None:
    grid = Grid("title", [Column("who", "name"), *(Column(f"measure{n}") for n in range(9))], caption="end")
    grid.add("me", *(f"0.{n}23456" for n in range(9)))
    text = drawn(grid, 80)
    assert "title (1 of 2)" in text and "title (2 of 2)" in text
    assert text.count("│ me") == 2 and text.count("end") == 1
    assert "(1 of" not in drawn(grid, 200)


def test_rows_are_named_by_what_they_differ_in() -> None:
    rows: list[dict[str, Any]] = [{"a": 1, "b": True, "c": None}, {"a": 1, "b": False, "c": None}]
    assert varying(rows) == (["b"], "a=1, c=-")


@pytest.fixture(scope="module")
def four(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spec of five factors over the small study's model and data."""
    manifest = json.loads((small_store / "experiments" / "small.json").read_text())["spec"]
    from small_study import spec_text

    folder = tmp_path_factory.mktemp("four")
    model, source = Path(manifest["model"]["id"]), Path(manifest["data"]["source"])
    spec = folder / "four.toml"
    spec.write_text(spec_text(folder / "store", model, source, FOUR, name="four", train="steps = 1"))
    engine("execute", spec, "--set", "data.test=4", "--set", "data.train=4", "--set", "seeds=[0]")
    return spec


SET = ("--set", "data.test=4", "--set", "data.train=4", "--set", "seeds=[0]")


def test_four_factors_fit_80_columns_with_every_number(four: Path) -> None:
    for arguments in (
        ("plan", four, "--cells", *SET),
        ("data", four, *SET),
        ("results", four, *SET),
        ("status", four, *SET),
    ):
        text = engine(*arguments, columns=80).output
        tables = [line for line in text.splitlines() if line[:1] in "│┃┏┡└├"]
        assert tables and all(cell_len(line) <= 80 for line in tables), text
        assert "…" not in text, text
    text = engine("results", four, *SET, columns=80).output
    facts = json.loads(engine("results", four, *SET, "--json").output)["experiments"][0]
    for condition in facts["conditions"]:
        assert f" {condition['measures']['accuracy']['mean']:.1%} " in text
        assert f" {condition['measures']['train_loss']['mean']:.3f} " in text
    cells = engine("plan", four, "--cells", *SET, columns=80).output
    assert "cached" in cells and told(cells, "all:", "seed=0")


def test_a_pipe_has_no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Grid.of("title", ["name"], ["number"])
    grid.add("long " * 60, "1")

    def printed() -> str:
        file = io.StringIO()
        Terminal(file=file).print(grid)
        return file.getvalue()

    monkeypatch.delenv("COLUMNS", raising=False)
    assert ("long " * 60).strip() in printed()
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(cell_len, printed().splitlines())) <= 80


def outputs(four: Path, small_store: Path) -> dict[str, list[tuple[object, ...]]]:
    """Calls of every command that has a schema, in each of its forms."""
    declared = ("--set", 'contrasts=[{factor="wording",baseline="plain and simple"}]')
    return {
        "plan": [
            (four, *SET), (four, "--cells"), (four, "--set", 'executor.device="h100"', *declared),
            (four, "--exact"), (four, "--diff", four),
        ],
        "data": [(four, *SET)],
        "results": [(four, *SET), (small_store,)],
        "status": [(four, *SET), (small_store,), (four, "--store", four.parent / "none", *SET)],
        "compare": [(four.parent / "store",) * 2, (small_store, small_store, "--cells")],
        "power": [(four, *declared), (four, *declared, "--difference", "0.1")],
    }  # fmt: skip


@pytest.mark.parametrize("name", SCHEMAS)
def test_json_is_as_its_schema_says_and_csv_has_rows(name: str, four: Path, small_store: Path) -> None:
    schema = json.loads(engine("schema", name).output)
    assert schema == schema_of(name)
    Draft202012Validator.check_schema(schema)
    for arguments in outputs(four, small_store)[name]:
        found = json.loads(engine(name, *arguments, "--json").output)
        Draft202012Validator(schema).validate(found)
        assert found["format"] == 1
        if "--diff" in arguments:
            continue
        rows = list(csv.DictReader(io.StringIO(engine(name, *arguments, "--csv").output)))
        assert rows and None not in rows[0]
    assert told(engine(name, *arguments, "--json", "--csv", code=2).output, "--json", "--csv", "one")


def test_a_key_that_a_schema_does_not_name_is_told(four: Path) -> None:
    found = json.loads(engine("status", four, *SET, "--json").output)
    found["experiments"][0]["surprise"] = 1
    assert not Draft202012Validator(schema_of("status")).is_valid(found)


def test_rows_hold_what_the_store_holds(four: Path, small_store: Path) -> None:
    facts = json.loads(engine("results", small_store, "--json").output)["experiments"][0]
    rows = list(csv.DictReader(io.StringIO(engine("results", small_store, "--csv").output)))
    assert [row["target"] for row in rows] == ["label", "label+explanation"]
    for row, condition in zip(rows, facts["conditions"], strict=True):
        measured = condition["measures"]["accuracy"]
        assert float(row["accuracy"]) == measured["mean"] and float(row["accuracy_low"]) == measured["low"]
        assert int(row["cells"]) == condition["cells"] == 2
    assert facts["contrasts"][0]["factor"] == "target"
    states = list(csv.DictReader(io.StringIO(engine("status", four, *SET, "--csv").output)))
    assert len(states) == 12 and {row["state"] for row in states} == {"done"}


def test_text_that_a_spreadsheet_would_run_is_no_formula_in_csv(write_spec) -> None:
    spec = write_spec('[factors.x.levels]\n"=1+1" = {}\nb = { lora.alpha = 8.0 }\n')
    rows = list(csv.DictReader(io.StringIO(engine("plan", spec, "--cells", "--csv").output)))
    assert rows[0]["x"] == "'=1+1"


def test_a_spec_stands_for_its_store(four: Path, tmp_path: Path) -> None:
    cell = "target=label,learning-rate=0.0001,scaling-of-the-adapter=8.0,wording=plain and simple"
    assert "four" in engine("results", four).output
    report = tmp_path / "page.html"
    engine("report", four, "-o", report)
    assert b"four" in report.read_bytes()
    assert "layer" in engine("show", four, "--cell", cell).output
    assert "numbers" in engine("compare", four, four.parent / "store", "--json").output
    assert "summary.csv" in engine("export", four, "--to", "csv", "-o", tmp_path / "tables").output
    assert "garbage" in engine("gc", four).output


@pytest.mark.parametrize("name", ["results", "report", "show", "export", "gc"])
def test_a_spec_that_never_ran_says_how_to_run_it(name: str, write_spec) -> None:
    more = ["--to", "csv"] if name == "export" else []
    code, output = command(name, write_spec(), *more)
    assert code == 2 and told(output, "store", "nothing has been executed yet", "engine execute")
    assert len(output.splitlines()) == 1
    spaced = write_spec().rename(write_spec().with_name("my study.toml"))
    assert f"`engine execute '{spaced}'`" in command(name, spaced, *more)[1]
    code, output = command(name, "smal.toml", *more)
    assert code == 2 and told(output, "smal.toml", "no such file")


def test_a_condition_without_a_measure_has_an_empty_field() -> None:
    known = {"mean": 0.25, "low": 0.25, "high": 0.25}
    nothing = dict.fromkeys(known, float("nan"))
    rows = [("label", nothing), ("label+explanation", known)]
    facts = {
        "conditions": [
            {"levels": {"target": level}, "cells": 1, "measures": {"generated_accuracy": numbers}}
            for level, numbers in rows
        ],
        "references": [],
    }
    text = "".join(drawn(table, 90) for table in results_tables(facts))
    assert "25.0%" in text and "nan" not in text
