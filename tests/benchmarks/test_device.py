"""The script for the first minutes on a GPU, tiny and on the CPU, so that nothing in it is new there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.device.__main__ import STEPS
from benchmarks.device.bundle import ON_THE_IMAGE, _dependencies
from benchmarks.device.record import Recorder, read_lines
from benchmarks.device.table import page

ROOT = Path(__file__).parents[2]


def run_script(folder: Path, *options: str) -> dict[tuple[str, str], dict[str, object]]:
    """Run the script tiny; give the values of every item. No item may have failed."""
    command = [sys.executable, "-m", "benchmarks.device", "--tiny", "--seconds", "1100", "--out", str(folder)]
    ended = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in (folder / "device.jsonl").read_text().splitlines()]
    wrong = [line for line in lines if line["status"] not in ("ok", "skipped")]
    assert ended.returncode == 0 and not wrong, json.dumps(wrong, indent=1)
    table = (folder / "device.md").read_text()
    assert all(f"## {line['step']}" in table for line in lines) and table in ended.stdout
    return {(line["step"], line["item"]): line["values"] for line in lines}


def test_the_engine_gives_the_numbers_of_the_cpu(tmp_path: Path) -> None:
    done = run_script(tmp_path, "--only", "facts", "--only", "engine")
    assert {step for step, item in done if item == "the whole step"} == {"facts", "engine"}
    assert float(done["engine", "probe/entropy"]["largest difference"]) < 1e-4
    assert any(step == "engine" and item.startswith("intervene/") for step, item in done)


@pytest.mark.device
@pytest.mark.demo
@pytest.mark.timeout(1200)
def test_every_step_runs_and_leaves_its_lines_and_a_table(tmp_path: Path) -> None:
    done = run_script(tmp_path)
    assert {step for step, item in done if item == "the whole step"} == {step.name for step in STEPS}
    assert done["training", "bfloat16"]["tokens/s"] > 0
    assert done["resume", "gone on from there, against an undisturbed run"]["same bits"]


def test_an_item_that_fails_is_told_and_the_next_one_runs(tmp_path: Path) -> None:
    record = Recorder("step", tmp_path / "lines", tmp_path, tiny=True)
    with record.item("wrong"):
        raise ValueError("of no use")
    with record.item("broken") as values:
        values |= {"error": float("inf"), "passed": False}
    with record.item("right") as values:
        values["number"] = 1.5
    lines = read_lines(tmp_path / "lines")
    assert [line["status"] for line in lines] == ["ERROR", "FAILED", "ok"]
    assert "ValueError: of no use" in lines[0]["error"] and lines[1]["values"] == {"error": "inf"}
    assert "| right | ok |" in page(lines, "title") and "2 of 3 items failed" in page(lines, "title")


def test_a_step_that_hangs_or_dies_is_ended_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    from benchmarks.device import __main__ as script

    steps = [script.Step("hangs", "no", 1, 0), script.Step("dies", "no", 60, 0)]
    programs = {"hangs": "import time; time.sleep(60)", "dies": "import os; os.abort()"}

    def start(step: script.Step, *_: object, **__: object) -> tuple[subprocess.Popen[bytes], Path]:
        output = tmp_path / step.name
        command = [sys.executable, "-X", "faulthandler", "-c", programs[step.name]]
        with output.open("wb") as stream:
            child = subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True)
        return child, output

    monkeypatch.setattr(script, "_start", start)
    with (tmp_path / "log").open("w") as log:
        script._run_group(steps, tmp_path / "lines", tmp_path, log, time.monotonic() + 60, tiny=False)
    found = {line["step"]: line for line in read_lines(tmp_path / "lines")}
    assert found["hangs"]["status"] == "TIMED OUT" and "sleep" not in found["hangs"].get("values", {})
    assert found["dies"]["status"] == "DIED" and "Aborted" in found["dies"]["error"]


def test_the_bundle_names_are_those_of_the_project() -> None:
    from packaging.requirements import Requirement

    names = {Requirement(text).name for text in _dependencies()}
    assert {"zarr", "cattrs", "rich", "click"} <= names - ON_THE_IMAGE
    assert {"torch", "transformers", "peft", "numpy"} <= names & ON_THE_IMAGE
