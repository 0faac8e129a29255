"""A few of the tests that are marked `gpu`: those that draw nothing and compile little."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.device.record import Recorder

CHOSEN = "chosen or same_bits or no_larger or scratch"


def run(record: Recorder) -> None:
    """Run them; the item fails where pytest does."""
    with record.item("pytest") as values:
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-k", CHOSEN, "-p", "no:cacheprovider"]
        ended = subprocess.run(
            [*command, "tests/kernels/test_gpu.py"], capture_output=True, text=True, check=False
        )
        print(ended.stdout, ended.stderr)
        said = ended.stdout.strip().splitlines() or ended.stderr.strip().splitlines()
        values |= {"said": said[-1] if said else "", "passed": ended.returncode == 0}
