"""Run the steps, each in a process of its own with its own time limit; keep what they find as they end."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib import import_module
from itertools import groupby
from pathlib import Path

from attrs import frozen

from benchmarks.device.record import Recorder, read_lines, write_line
from benchmarks.device.table import page

LEFT = 5.0  # seconds without which no step is begun


@frozen
class Step:
    """A step: a function `run(recorder)` of a module, and how long it may take on a GPU."""

    name: str
    function: str  # MODULE:FUNCTION of benchmarks.device
    seconds: float
    group: int  # steps of one group run at the same time: theirs are checks, not timings


# The most valuable first: what is left over by one is there for those behind it.
STEPS = (
    Step("facts", "facts:run", 45, 0),
    Step("checks: doctor", "checks:doctor", 130, 1),
    Step("checks: bfloat16", "checks:bfloat16", 130, 1),
    Step("checks: options", "checks:options", 130, 1),
    Step("checks: other types", "checks:other_types", 130, 1),
    Step("checks: ranks", "checks:ranks", 130, 1),
    Step("checks: entropies", "checks:entropies", 130, 1),
    Step("engine", "engine_runs:run", 120, 2),
    Step("resume", "training:resume", 120, 2),
    Step("timings", "timings:run", 110, 3),
    Step("training", "training:run", 110, 4),
    Step("workers", "workers:run", 80, 5),
    Step("tiles", "tiles:run", 80, 6),
    Step("gpu tests", "gpu_tests:run", 60, 7),
)


def main() -> None:
    options = _options()
    if options.child:
        step = next(step for step in STEPS if step.name == options.child)
        module, _, function = step.function.partition(":")
        record = Recorder(step.name, options.lines, options.work, tiny=options.tiny)
        getattr(import_module(f"benchmarks.device.{module}"), function)(record)
        return
    wanted = [
        step for step in STEPS if not options.only or any(step.name.startswith(o) for o in options.only)
    ]
    if not wanted:
        names = ", ".join(step.name for step in STEPS)
        sys.exit(f"--only {' --only '.join(options.only)}: expected the beginning of one of {names}")
    options.out.mkdir(parents=True, exist_ok=True)
    lines = options.out / "device.jsonl"
    lines.unlink(missing_ok=True)
    end = time.monotonic() + options.seconds
    with tempfile.TemporaryDirectory(prefix="device-") as work, (options.out / "device.log").open("w") as log:
        for _, group in groupby(wanted, key=lambda step: step.group):
            _run_group(list(group), lines, Path(work), log, end, tiny=options.tiny)
            table = page(read_lines(lines), "What this device does" + " (tiny sizes)" * options.tiny)
            (options.out / "device.md").write_text(table, "utf-8")
    print(table)
    sys.exit(any(line["status"] not in ("ok", "skipped") for line in read_lines(lines)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.device", description=__doc__)
    parser.add_argument("--only", action="append", metavar="STEP", help="steps whose name begins so")
    parser.add_argument("--tiny", action="store_true", help="sizes for a CPU")
    parser.add_argument("--seconds", type=duration, default=480, help="of all steps together")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or "device-report"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--lines", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def duration(text: str) -> float:
    """Read seconds that leave time for a step; argparse calls them by this function's name."""
    seconds = float(text)
    if not seconds >= LEFT:
        raise argparse.ArgumentTypeError(f"found {text}, expected {LEFT:g} or more")
    return seconds


def _run_group(steps: list[Step], lines: Path, work: Path, log, end: float, *, tiny: bool) -> None:
    """Run the steps of a group at the same time; write a line on each, however it ends."""
    if end - time.monotonic() < LEFT:
        for step in steps:
            write_line(lines, _ended(step, "skipped", 0.0, "no time was left for it"))
        return
    began = time.monotonic()
    children = {step: _start(step, lines, work, tiny=tiny) for step in steps}
    limits = {step: min(began + step.seconds * (4 if tiny else 1), end) for step in steps}
    waiting = set(steps)
    while waiting:
        for step in [step for step in steps if step in waiting]:
            child, output = children[step]
            late = time.monotonic() > limits[step]
            if late and child.poll() is None:
                _kill(child)
            if child.poll() is None:
                continue
            waiting.discard(step)
            seconds = time.monotonic() - began
            said = output.read_text("utf-8", "replace")
            log.write(f"===== {step.name}: {seconds:.1f} s, exit code {child.returncode}\n{said}\n")
            log.flush()
            reason = "\n".join(said.splitlines()[-12:])
            if late:
                write_line(lines, _ended(step, "TIMED OUT", seconds, reason))
            elif child.returncode:
                write_line(lines, _ended(step, "DIED", seconds, f"exit code {child.returncode}\n{reason}"))
            else:
                write_line(lines, _ended(step, "ok", seconds))
            print(f"{step.name}: {read_lines(lines)[-1]['status']} after {seconds:.0f} s", flush=True)
        time.sleep(0.1)


def _ended(step: Step, status: str, seconds: float, error: str = "") -> dict[str, object]:
    line = {"step": step.name, "item": "the whole step", "status": status, "seconds": round(seconds, 1)}
    return line | ({"error": error} if error else {}) | {"values": {}}


def _start(step: Step, lines: Path, work: Path, *, tiny: bool) -> tuple[subprocess.Popen[bytes], Path]:
    """Start a step in a process group of its own, so that a kill takes all that it has started."""
    folder = work / step.name.replace(":", "").replace(" ", "-")
    folder.mkdir()
    environment = {
        **os.environ,
        "PYTHONUNBUFFERED": "1", "COLUMNS": "200", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
        "ABLATION_ENGINE_CACHE": str(work / "cache"), "XDG_CONFIG_HOME": str(work / "config"),
    }  # fmt: skip
    command = [sys.executable, "-X", "faulthandler", "-m", "benchmarks.device", "--child", step.name]
    command += ["--lines", str(lines.resolve()), "--work", str(folder), *["--tiny"] * tiny]
    output = folder / "output"
    with output.open("wb") as stream:
        child = subprocess.Popen(
            command, env=environment, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
    return child, output


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End a step and all that it has started: first with a stack of where it is."""
    os.killpg(child.pid, signal.SIGABRT)  # faulthandler writes the stack
    with suppress(subprocess.TimeoutExpired):
        child.wait(3)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


if __name__ == "__main__":
    main()
