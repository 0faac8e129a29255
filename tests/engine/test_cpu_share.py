"""Threads follow what a process may use; how they wait, whether others are busy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine import cpu_share, full_memory


@pytest.mark.parametrize(
    ("membership", "files", "count", "source"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "250000 100000\n"}, 3, "a/cpu.max"),
        ("0::/a\n", {"a/cpu.max": "10000 100000\n"}, 1, "a/cpu.max"),
        ("0::/a\n", {"a/cpu.max": "max 100000\n"}, 8, "affinity"),
        (
            "3:cpu,cpuacct:/jobs\n",
            {"cpu/jobs/cpu.cfs_quota_us": "200000\n", "cpu/jobs/cpu.cfs_period_us": "100000\n"},
            2,
            "cpu.cfs_quota_us",
        ),
        (
            "3:cpu,cpuacct:/jobs\n",
            {"cpu/jobs/cpu.cfs_quota_us": "-1\n", "cpu/jobs/cpu.cfs_period_us": "100000\n"},
            8,
            "affinity",
        ),
    ],
)
def test_the_least_of_affinity_and_cgroups_counts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    membership: str,
    files: dict[str, str],
    count: int,
    source: str,
) -> None:
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(full_memory, "CGROUPS", tmp_path)
    monkeypatch.setattr(full_memory, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    share = cpu_share.cpu_share()
    assert share.count == count and share.source.endswith(source)


@pytest.mark.parametrize(
    ("load", "source", "given", "expected"),
    [
        (0.0, "affinity", {}, {}),
        (3.0, "affinity", {}, {"OMP_WAIT_POLICY": "passive"}),
        (0.0, "cpu.max", {}, {"OMP_NUM_THREADS": "4"}),
        (9.0, "cpu.max", {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "active"}, {}),
    ],
)
def test_others_change_how_threads_wait_and_never_how_many_there_are(
    monkeypatch: pytest.MonkeyPatch,
    load: float,
    source: str,
    given: dict[str, str],
    expected: dict[str, str],
) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(cpu_share, "cpu_share", lambda: cpu_share.CpuShare(4, source))
    environment = dict(given)
    cpu_share.set_threads(environment)
    assert environment == given | expected


def test_the_command_chooses_before_torch_is_there() -> None:
    code = (
        "import os, sys; sys.argv = ['engine', 'schema']; os.getloadavg = lambda: (99.0, 0.0, 0.0)\n"
        "from engine.cli.main import main\ntry: main()\nexcept SystemExit: pass\n"
        "sys.exit(os.environ.get('OMP_WAIT_POLICY') != 'passive')"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert run.returncode == 0, run.stderr
