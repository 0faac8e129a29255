"""Completion, help that is not cut, and the command that is told of an execution's end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import command, engine
from facts import told

from engine.cli.main import cli

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(shell: str) -> None:
    script = engine("completion", shell).output
    assert "_ENGINE_COMPLETE" in script and f"{shell}_complete" in script
    code, output = command("completion", "csh")
    assert code == 2 and told(output, "csh", "bash")


def completed(*words: str) -> list[str]:
    """Complete the last word as the script for bash does."""
    asked = {"_ENGINE_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(("engine", *words))}
    asked |= {"COMP_CWORD": str(len(words)), "PYTHONPATH": str(ROOT)}
    code = "import sys; sys.argv = ['engine']; from engine.cli.main import main; main()"
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, env=os.environ | asked, capture_output=True, text=True, check=False)
    return done.stdout.split()


def test_commands_and_files_are_completed() -> None:
    assert completed("re") == ["plain,results", "plain,report"] or set(completed("re")) == {
        "plain,report", "plain,results",
    }  # fmt: skip
    assert completed("results", "sto") == ["file,sto"]


def test_the_list_of_commands_has_whole_sentences() -> None:
    output = engine("--help", columns=80).output
    for name, entry in cli.commands.items():
        first = " ".join((entry.help or "").split("\n\n")[0].split()).rstrip(".").partition(". ")[0]
        assert first in " ".join(output.split()), name
    assert "..." not in output.partition("Commands:")[2]


def test_a_command_of_ones_own_is_told_of_every_end(write_spec, tmp_path: Path) -> None:
    note = f'echo "$ABLATION_EXPERIMENT $ABLATION_STATE $ABLATION_SUMMARY" >> "{tmp_path}/told"'
    spec = write_spec(f"[executor]\nnotify = '''{note}'''\n")
    one = ("--set", "seeds=[0]", "--only", "target=label")

    def heard() -> str:
        (line,) = (tmp_path / "told").read_text().splitlines()
        (tmp_path / "told").unlink()
        return line

    assert told(engine("plan", spec).output, "executor.notify", "shell")
    engine("execute", spec, *one, "--dry-run")
    assert not (tmp_path / "told").exists()
    engine("execute", spec, *one)
    assert heard() == "small done ran 1 data, 1 base, 1 train, 1 evaluate, 1 probe"
    engine("execute", spec, *one, "-q")
    assert heard() == "small done nothing to do: 1 cell done"
    bad = (*one, "--set", "lora.target_modules=nothing")
    engine("execute", spec, *bad, code=1)
    assert told(heard(), "small failed", "ran", "1 stage failed")
    engine("execute", spec, *bad, code=1)
    assert told(heard(), "small failed nothing to do", "0 cells done", "1 cell failed before")
    code, output = command("execute", spec, "--executor", "ray", "--set", "executor.address='nowhere'")
    assert code != 0 and output.strip().splitlines()[-1].removeprefix("error: ")[:30] in heard()
    broken = (*bad, "--set", "lora.r=3", "--set", "executor.notify=exit 3")
    output = engine("execute", spec, *broken, code=1).output
    assert told(output, "executor.notify", "exit 3", "ended with 3")


def test_nothing_left_to_run_has_no_columns_of_costs(write_spec) -> None:
    spec, one = write_spec(), ("--set", "seeds=[0]", "--set", "train.steps=1")
    assert "FLOPs" in engine("plan", spec, *one).output
    engine("execute", spec, *one)
    output = engine("plan", spec, *one).output
    assert "FLOPs" not in output and told(output, "train", "2 cached")


def test_an_execution_leaves_a_log_that_is_no_foreign_file(write_spec, tmp_path: Path) -> None:
    spec, one = write_spec(), ("--set", "seeds=[0]")
    engine("execute", spec, *one)
    lines = engine("logs", spec).output.splitlines()
    assert told(lines[0], "begins", "target=label", "data")
    assert sum("train  train_" in line or ": train  " in line for line in lines if "done" in line) == 2
    alone = engine("logs", tmp_path / "store", "--cell", "target=label+explanation").output
    assert "train_loss" in alone and "target=label," not in alone
    engine("execute", spec, *one, "--set", "train.steps=1")
    assert len(engine("logs", spec, "--all").output.splitlines()) > len(lines)
    (newest, _) = sorted((tmp_path / "store" / "logs").iterdir(), reverse=True)
    with newest.open("a") as stream:
        stream.write('{"half')  # as a kill may leave it
    assert "half" not in engine("logs", spec).output
    assert "not the store's" not in engine("verify", tmp_path / "store").output
