"""How cells are named: one rule for `--only` and `--cell` of all commands, and for arguments in Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from commands import command, engine
from facts import facts, told
from hypothesis import given
from hypothesis import strategies as st

from engine.cli.main import cli
from engine.errors import UsageError
from engine.planning.levels import describe, has_levels, is_level, known_levels, named_levels

KNOWN = {
    "target": ["label", "label+explanation", "a", "b", "a,b"],
    "wording": ["yes, or no", "yes", "x=1, seed=7", None],
    "seed": [0, 1, 2],
    "chat": [True, False],
    "lr": [0.1, 1e-05],
}


@pytest.mark.parametrize(
    ("texts", "levels"),
    [
        (["target=label, seed=0"], {"target": ["label"], "seed": [0]}),
        (["target=label,seed=0,"], {"target": ["label"], "seed": [0]}),
        (["target=label,label+explanation"], {"target": ["label", "label+explanation"]}),
        (["target=label , b,seed=0, 2"], {"target": ["label", "b"], "seed": [0, 2]}),
        (["target=a", "target=b", "seed=1"], {"target": ["a", "b"], "seed": [1]}),
        (["target=a,b"], {"target": ["a,b"]}),  # a level of this very name
        (["target=b,a"], {"target": ["b", "a"]}),
        (["wording=yes, or no,yes,seed=1"], {"wording": ["yes, or no", "yes"], "seed": [1]}),
        (["wording=x=1, seed=7,seed=1"], {"wording": ["x=1, seed=7"], "seed": [1]}),
        (["wording=-,chat=true,False"], {"wording": [None], "chat": [True, False]}),
        (["lr=0.1,1e-05"], {"lr": [0.1, 1e-05]}),
        ([], {}),
    ],
)
def test_a_text_names_levels(texts: list[str], levels: dict[str, list[Any]]) -> None:
    assert named_levels(texts, KNOWN, "--only") == levels


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ("--only", "expected FACTOR=LEVEL")),
        ("label", ("--only label", "expected FACTOR=LEVEL")),
        ("sed=0", ("--only sed=0", "'sed'", "nearest", "'seed'")),
        ("target=label,sed=0", ("--only sed=0", "'sed'", "nearest", "'seed'")),
        ("target=lable", ("target=lable", '"lable"', "label, label+explanation", "nearest", "'label'")),
        ("target=label,explanation", ("target=explanation", "expected one of")),
        ("seed=0,7", ("seed=7", "0, 1, 2")),
        ("target=", ("target=", "expected one of")),
        ("target=a,,b", ("target=", "expected one of")),
    ],
)
def test_what_names_no_level_is_told(text: str, said: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=facts(*said)):
        named_levels([text], KNOWN, "--only")


NAMES = st.text("ab,= +1", min_size=1).map(str.strip).filter(bool)


@given(st.dictionaries(st.sampled_from(["one", "two"]), st.lists(NAMES, min_size=1, unique=True), min_size=1))
def test_the_whole_text_of_a_level_always_names_it(known: dict[str, list[str]]) -> None:
    for factor, levels in known.items():
        for level in levels:
            assert named_levels(f"{factor}={level}", known, "only") == {factor: [level]}
            assert named_levels({factor: level}, known, "only") == {factor: [level]}


def test_levels_are_named_as_toml_and_as_python_write_them() -> None:
    assert is_level(True, "true") and is_level(True, "True") and not is_level(True, "1")
    assert is_level(None, "-") and is_level(0.1, "0.1") and is_level("true", "true")


def test_a_cell_is_on_levels_of_the_same_type() -> None:
    cells = [{"x": 1, "seed": 0}, {"x": True, "seed": 0}, {"x": "1", "seed": 1}]
    assert known_levels(cells) == {"x": [1, True, "1"], "seed": [0, 1]}
    assert [has_levels(cell, {"x": [True]}) for cell in cells] == [False, True, False]
    assert [has_levels(cell, {"y": [1]}) for cell in cells] == [False] * 3


def test_the_commands_that_choose_cells_do_it_by_the_same_option() -> None:
    choosing = {
        name: option
        for name, entry in cli.commands.items()
        for option in entry.params
        if isinstance(option, click.Option) and {"--only", "--cell"} & {*option.opts}
    }
    assert set(choosing) == {"plan", "execute", "status", "logs", "show", "publish"}
    for option in choosing.values():
        assert {*option.opts} == {"--only", "--cell"} and option.multiple
        assert option.metavar == "FACTOR=LEVEL,…"


@pytest.mark.parametrize("option", ["--only", "--cell"])
def test_commands_take_levels_and_factors_by_commas(write_spec, option: str, tmp_path: Path) -> None:
    spec = write_spec()
    asked = (option, "target=label,label+explanation,seed=0")
    both = ["target=label, seed=0", "target=label+explanation, seed=0"]
    output = engine("execute", spec, *asked, "--dry-run").output
    assert all(told(output, "would run", levels) for levels in both) and told(output, "2 of 4")
    cells = json.loads(engine("plan", spec, "--cells", *asked, "--json").output)["matrix"]
    assert [cell["levels"]["seed"] for cell in cells] == [0, 0]
    engine("execute", spec, *asked)
    cells = json.loads(engine("status", spec, *asked, "--json").output)["experiments"][0]["cells"]
    assert [cell["state"] for cell in cells] == ["done", "done"]
    logged = engine("logs", spec, option, "target=label+explanation,seed=0,1").output
    assert "target=label+explanation" in logged and "target=label," not in logged
    assert "true label" in engine("show", spec, option, "target=label,seed=0,").output
    folder = tmp_path / "adapter"
    engine("publish", spec, option, "target=label,seed=0", "--to", "folder", "-o", folder)
    assert (folder / "README.md").exists()
    for name, *more in (("logs",), ("show",), ("status",), ("publish", "--to", "folder", "-o", "x")):
        code, output = command(name, spec, option, "target=label,sed=0", *more)
        assert code == 2 and told(output, "sed=0", "'seed'"), output


def test_only_takes_levels_with_commas_and_booleans(write_spec) -> None:
    spec = write_spec(
        '[factors.chat]\npath = "lora.dora"\nvalues = [true, false]\n'
        '[factors.way.levels]\n"a, b" = {}\nc = { train.lr = 1e-3 }\n'
    )
    dry = ("--dry-run", "--set", "seeds=[0]")
    output = engine("execute", spec, "--only", "chat=true", "--only", "way=a, b", *dry).output
    assert told(output, "2 of 8 cells would run") and "way=a, b" in output
    code, output = command("execute", spec, "--only", "chat=yes", *dry)
    assert code == 2 and told(output, "chat=yes", "true, false")


def test_a_level_that_is_like_none_has_no_nearest() -> None:
    for text, known in (("seed=true", {"seed": [0, 1, 2]}), ("seed=9", {"seed": [0, 1]})):
        with pytest.raises(UsageError) as error:
            named_levels([text], known, "--only")
        assert "nearest" not in str(error.value) and "expected one of" in str(error.value)


def test_levels_are_described_as_a_spec_has_them() -> None:
    levels = {"target": "label", "chat": True, "rank": None, "lr": 1e-4, "seed": 0}
    assert describe(levels) == "target=label, chat=true, rank=-, lr=0.0001, seed=0"
