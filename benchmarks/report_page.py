"""How long does a report of 300 cells take to write and to open, and how large is it?

    python -m benchmarks.report_page [--cells N]

Targets for 300 cells: written in 15 s, below 15 MB, open in 2 s. Processor time is that of
all processes. Opening is measured in an installed Chromium, without one it is left out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from store.report import write_report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from report_store import Design, write_synthetic

PER_TARGET = 20  # cells


def design(cells: int) -> Design:
    """Give a store of about so many cells."""
    return Design(
        {"target": [f"target {n}" for n in range(-(-cells // PER_TARGET))], "rank": [4, 8, 16, 32]},
        seeds=(0, 1, 2, 3, 4),
        examples=60,
        layers=33,
        steps=500,
        vocabulary=[f" token{n}" for n in range(30000)],
        contrasts=[{"factor": "target", "baseline": "target 0"}],
    )


REPEATS = 5


def opening(file: Path) -> float | None:
    """Give the median seconds until the last section stands; None without a Chromium."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        return None
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            page.goto(file.as_uri())
            page.wait_for_selector("#provenance")
            times.append(time.perf_counter() - start)
        browser.close()
    return statistics.median(times)


def main() -> None:
    """Print size and times."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = write_synthetic(Path(folder) / "store", design(options.cells))
        start, processor = time.perf_counter(), seconds_of_processor()
        file = write_report(root, Path(folder) / "report.html")
        spent = seconds_of_processor() - processor
        size = file.stat().st_size / 1e6
        print(
            f"written in {time.perf_counter() - start:.1f} s, {spent:.1f} s of processor time, {size:.1f} MB"
        )
        opened = opening(file)
        print("no Chromium" if opened is None else f"opened in {opened:.2f} s (median of {REPEATS})")


def seconds_of_processor() -> float:
    """Give the processor time of this process and those that it has started and that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    main()
