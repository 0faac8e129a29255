"""SPEC|STORE and its options: one rule for all commands that read a store; and logs that are waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import click
import pytest
from commands import CODE, command, engine
from facts import told

from engine.cli.main import cli
from engine.running.executors.imports import python_environment

READING = ("status", "results", "report", "export", "show", "publish", "logs", "gc", "verify")
CELL = ("--cell", "target=label,seed=0")
MORE = {"export": ("--to", "csv"), "publish": (*CELL, "--to", "folder"), "show": CELL}
WRITING = ("report", "export", "publish")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory, small_store: Path) -> tuple[Path, Path]:
    """A spec whose own store is not there, and the store in which it was executed."""
    folder = tmp_path_factory.mktemp("elsewhere")
    spec = folder / "small.toml"
    text = (small_store.parent / "small.toml").read_text()
    spec.write_text(text.replace(str(small_store), str(folder / "own")))
    return spec, small_store


def test_all_commands_that_read_a_store_take_the_same_argument_and_options() -> None:
    for name in READING:
        entry = cli.commands[name]
        (argument,) = (one for one in entry.params if isinstance(one, click.Argument))
        assert argument.make_metavar(click.Context(entry)) == "SPEC|STORE", name
        options = {spelling for one in entry.params if isinstance(one, click.Option) for spelling in one.opts}
        assert {"--store", "--set", "--unset"} <= options, name


@pytest.mark.parametrize("name", READING)
def test_a_store_is_named_beside_a_spec_and_nowhere_else(name: str, elsewhere, tmp_path: Path) -> None:
    spec, store = elsewhere

    def said(number: int, *arguments: object) -> str:
        folder = tmp_path / f"written-{number}"
        more = ("-o", folder) if name in WRITING else ()
        return engine(name, *arguments, *MORE.get(name, ()), *more).output.replace(str(folder), "OUT")

    expected = said(1, store)
    assert said(2, spec, "--store", store) == expected
    assert said(3, spec, "--set", f"store='{store}'") == expected
    for option in (("--store", store), ("--set", "seeds=[0]"), ("--unset", "seeds")):
        more = (*MORE.get(name, ()), *(("-o", "x") if name in WRITING else ()))
        code, output = command(name, store, *option, *more)
        assert code == 2 and told(output, "beside a spec", str(store)), output
        assert len(output.splitlines()) == 1


@pytest.mark.parametrize("name", READING)
def test_a_store_that_is_not_there_is_told_in_a_sentence(name: str, elsewhere, tmp_path: Path) -> None:
    more = (*MORE.get(name, ()), *(("-o", tmp_path / "out") if name in WRITING else ()))
    code, output = command(name, tmp_path / "nowhere", *more)
    assert code == 2 and told(output, 'nowhere", which is no spec or store')
    assert len(output.splitlines()) == 1
    if name != "status":  # which shows that all is pending
        code, output = command(name, elsewhere[0], *more)
        assert code == 2 and told(output, "own", "nothing has been executed yet", "engine execute")
        assert len(output.splitlines()) == 1


def following(*arguments: object) -> tuple[subprocess.Popen[str], list[str]]:
    """Start `engine logs -f`; give the process, and its lines as they come."""
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, "logs", "-f", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, **python_environment()}, start_new_session=True,
    )  # fmt: skip
    lines: list[str] = []

    assert process.stdout is not None
    threading.Thread(target=lines.extend, args=(process.stdout,), daemon=True).start()
    return process, lines


def wait_for(lines: list[str], *facts: str) -> None:
    deadline = time.monotonic() + 120
    while not any(told(line, *facts) for line in list(lines)):
        assert time.monotonic() < deadline, lines
        time.sleep(0.1)


def test_logs_are_followed_from_before_there_are_any(write_spec, tmp_path: Path) -> None:
    spec = write_spec()
    process, lines = following(spec, "--only", "target=label")
    try:
        wait_for(lines, "store", "no log yet", "waiting for `engine execute`")
        engine("execute", spec, "--only", "seed=0")
        wait_for(lines, "done", "cell 1 target=label, seed=0", "train", "train_loss")
        assert not any("target=label+" in line for line in lines)
        engine("execute", spec)  # a later execution is followed, too
        wait_for(lines, "done", "cell 2 target=label, seed=1", "probe")
        assert sum("cell 1" in line and "train_loss" in line for line in lines) == 1
    finally:
        process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert not any("Traceback" in line for line in lines)
    code, output = command("logs", tmp_path / "nowhere")
    assert code == 2 and len(output.splitlines()) == 1
