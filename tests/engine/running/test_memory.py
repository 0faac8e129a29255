"""Memory that is full is told with the limit, the plan's estimate and what to try."""

from __future__ import annotations

import os
import resource
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from children import FORKS
from commands import engine
from facts import told
from faults import calls

from engine import full_memory
from engine.cli import session
from engine.errors import EngineError
from engine.planning.plan import Plan, make_plan
from engine.progress import StopRequest
from engine.running import memory
from engine.running.executors.base import Job, Resources
from engine.running.executors.local import LocalExecutor, slots
from engine.running.lost_workers import loss
from engine.running.outcome import Options
from engine.running.scheduler import units
from specs import load_spec, resolve


def group(monkeypatch: pytest.MonkeyPatch, folder: Path, membership: str, files: dict[str, str]) -> None:
    """Let this process belong to cgroups whose files lie in a folder."""
    (folder / "membership").write_text(membership)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setattr(full_memory, "CGROUPS", folder)
    monkeypatch.setattr(full_memory, "MEMBERSHIP", folder / "membership")


V1 = "7:blkio:/\n4:cpu,memory:/jobs/1\n0::/jobs/1\n"


@pytest.mark.parametrize(
    ("membership", "files", "size", "kills"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "4096\n"}, 4096, None),
        ("0::/a\n", {"a/memory.max": "max\n", "a/memory.events": "low 0\noom 5\noom_kill 3\n"}, None, 3),
        ("0::/elsewhere\n", {"memory.max": "8192\n", "memory.events": "oom_kill 1\n"}, 8192, 1),
        (V1, {"memory/jobs/1/memory.limit_in_bytes": "5000\n", "memory/memory.oom_control": ""}, 5000, None),
        (V1, {"memory/jobs/1/memory.oom_control": "under_oom 0\noom_kill 2\n"}, None, 2),
        (V1, {"memory/memory.limit_in_bytes": f"{2**63 - 4096}\n"}, None, None),
    ],
)
def test_the_least_limit_of_a_cgroup_and_those_above_it_counts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    membership: str,
    files: dict[str, str],
    size: int | None,
    kills: int | None,
) -> None:
    group(monkeypatch, tmp_path, membership, files)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert full_memory.limit().size == (size or machine)
    assert full_memory.oom_kills() == kills


@pytest.fixture
def plan(write_spec, tmp_path: Path) -> Plan:
    return make_plan(resolve(load_spec(write_spec())), tmp_path / "store")


SENTENCE = (
    "out of memory: limit 100 kB ({file}), estimate {need} for train; try train.max_length below {length}, "
    'model.dtype = "bfloat16", model.quantization, '
    "fewer workers, or more memory"
)


def sentence(plan: Plan, file: Path) -> str:
    from engine.quantities import si

    need = memory.needed(plan, plan.cells[0], "train", 1e5)
    length = plan.matrix.table("train", plan.cells[0].choice).max_length
    return SENTENCE.format(file=file, need=si(need, "B"), length=length)


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("full", [True, False])
def test_a_worker_that_the_kernel_killed_for_memory_is_told_from_one_that_a_person_killed(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: bool, full: bool
) -> None:
    """By the kernel's count; where there is none, by a limit below the estimate."""
    files = {"memory.max": "100000\n" if full or counted else "max\n"}
    if counted:
        files["memory.events"] = "oom_kill 3\n"
    group(monkeypatch, tmp_path, "0::/\n", files)
    job = Job(plan.matrix.spec.anchored(), plan.root, Options(), 60.0)
    executor = LocalExecutor(job, StopRequest(), 0.0, slots(1, 1))
    unit = units(plan, plan.cells, 1)[0]
    executor.submit(unit, Resources())
    ends = executor.as_completed()
    try:
        assert next(ends) is None
        if counted and full:
            (tmp_path / "memory.events").write_text("oom_kill 4\n")
        os.kill(executor.slots[0].process.pid, signal.SIGKILL)
        finished = next(end for end in ends if end)
    finally:
        executor.cancel()
    said = loss(plan, 1, finished, unit.cells[0], "train")
    expected = "the worker was killed by SIGKILL"
    assert said == (f"{expected}: {sentence(plan, tmp_path / 'memory.max')}" if full else expected)


def exhaust(spec: Path, pipe: Connection) -> None:
    """Ask for more than the address space has, of Python and of torch."""
    plan = make_plan(resolve(load_spec(spec)))
    (used, *_) = map(int, Path("/proc/self/statm").read_text().split())
    allowed = used * resource.getpagesize() + 2**28
    resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))
    for take in (lambda: bytearray(2**30), lambda: torch.ones(2**28)):
        try:
            take()
        except Exception as error:
            pipe.send(memory.failure(plan, plan.cells[0], "train", error))


def test_full_memory_in_a_process_is_one_sentence(write_spec) -> None:
    ours, theirs = FORKS.Pipe()
    child = FORKS.Process(target=exhaust, args=(write_spec(), theirs))
    child.start()
    try:
        for kind in ("MemoryError", "RuntimeError: "):
            assert ours.poll(60)
            said = ours.recv()
            assert "\n" not in said and f"({kind}" in said
            assert said.startswith("out of memory: limit ") and " (ulimit -v), estimate " in said
    finally:
        child.kill()
        child.join()


def test_errors_that_come_of_full_memory_are_told_from_others(plan: Plan) -> None:
    wrapped = EngineError("model.id: cannot load it")
    wrapped.__cause__ = MemoryError()
    assert full_memory.memory_error(wrapped) == "cpu"
    assert (
        full_memory.memory_error(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
        == "gpu"
    )
    assert full_memory.memory_error(RuntimeError("CUDA error: out of memory")) == "gpu"
    assert full_memory.memory_error(OSError(12, "Cannot allocate memory")) == "cpu"
    assert memory.failure(plan, plan.cells[0], "train", RuntimeError("shapes")) == "RuntimeError: shapes"


def test_a_limit_below_the_estimate_is_told_before_anything_runs(
    write_spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "run", lambda *_, **__: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    call = ("execute", write_spec(), "--store", tmp_path / "new", "--workers", 2)
    group(monkeypatch, tmp_path, "0::/\n", {"memory.max": "max\n"})
    with calls("engine.planning.estimate.Cards", lambda: None) as estimates:
        assert engine(*call).output == f"small: 4 of 4 cells to run; store: {tmp_path}/new\n"
    assert estimates.count == 1  # for the disk and for memory
    (tmp_path / "memory.max").write_text("1000000\n")
    output = engine(*call).output
    assert "\nwarning: 2 processes need about " in f"\n{output}" and output.count("\n") == 2
    assert told(output, "probe", "1 MB", f"{tmp_path}/memory.max", "probe.batch_size")
