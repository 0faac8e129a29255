"""A second Ctrl-C ends everything at once, whatever processes the work runs in."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from children import assert_same, contents, run
from commands import CODE
from facts import told
from small_study import small_spec

from engine.running.executors.imports import python_environment

CLAIMS = "claims/train/*/*.json"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rated_file: Path) -> Path:
    """The folder of a spec of four cells, and of the store that one process makes of it."""
    folder = tmp_path_factory.mktemp("study")
    run(folder, "execute", small_spec(folder, tiny_model, rated_file, train="steps = 4"))
    return folder


def of_session(session: int) -> list[str]:
    """The live processes of a session, by number and command."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, own, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if int(own) == session and state not in "ZX":
            found.append(f"{folder.name} {command}")
    return found


def insist(root: Path, spec: Path, *options: str, alone: bool) -> str:
    """Execute with workers, one of which answers nothing any more, and press Ctrl-C twice."""
    before = set(root.glob(CLAIMS))  # of the one that was killed for its silence
    words = ["execute", spec, "--store", root, "--set", "executor.grace=600", *options]
    environment = {**os.environ, **python_environment(), "OMP_NUM_THREADS": "1"}
    with (root.parent / "output").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", CODE, *map(str, words)],
            stdout=output, stderr=output, env=environment, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not (claims := sorted(set(root.glob(CLAIMS)) - before)):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        os.kill(json.loads(claims[0].read_text())["pid"], signal.SIGSTOP)
        for _ in range(2):
            (os.kill if alone else os.killpg)(process.pid, signal.SIGINT)
            time.sleep(0.1)
        assert process.wait(60) == 130
        deadline = time.monotonic() + 5
        while left := of_session(process.pid):  # multiprocessing's tracker ends when nobody writes to it
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return (root.parent / "output").read_text()


WORKERS = ("--workers", str(max(2, os.cpu_count() or 1)))  # so that each has one thread


def test_a_second_interrupt_ends_workers_at_once_and_loses_nothing(study: Path, tmp_path: Path) -> None:
    """Both as from a terminal, which sends it to all processes, and to the first process alone."""
    root, spec = tmp_path / "store", study / "small.toml"
    for alone in (False, True):
        output = insist(root, spec, *WORKERS, alone=alone)
        assert told(output.strip().splitlines()[-1], "Stopped")
        assert not re.search("Traceback|lost ", output), output
    run(tmp_path, "execute", spec, "--store", root)
    assert_same(contents(root), contents(study / "store"))
