"""Executors: worker processes, a Ray cluster and submitit's local jobs come to the results of one process."""

from __future__ import annotations

import json
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from children import assert_same, contents, run
from commands import engine, ran
from facts import facts, told
from jobs import job_of
from small_study import small_spec

from engine.cpu_share import cpu_share
from engine.errors import Interrupted, UsageError
from engine.models.lens_files import CheckpointFile
from engine.planning.cost import Cost
from engine.planning.estimate import estimator
from engine.planning.executor_settings import executor_settings
from engine.planning.plan import PlannedCell, make_plan
from engine.progress import StopRequest
from engine.running.display import Display
from engine.running.executors.base import Finished, Job, Resources, Work
from engine.running.executors.local import LocalExecutor, slots
from engine.running.executors.queue import Queue
from engine.running.outcome import Options, Outcome
from engine.running.resume_progress import progress_on_disk
from engine.running.scheduler import Policy, Scheduler, units
from specs import SpecError, load_spec, resolve
from specs.tables.experiment import STAGES
from store import Ledger, read_manifests
from store.backend.locate import place_of
from store.backend.records import write_json
from store.ledger.ledger import progress_name


@pytest.fixture(scope="module")
def study(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rated_file: Path
) -> tuple[Path, dict[str, object]]:
    """A spec of four cells, and what one process makes of it."""
    folder = tmp_path_factory.mktemp("study")
    spec = small_spec(folder, tiny_model, rated_file, train="steps = 4\ncheckpoint_every = 1")
    run(folder, "execute", spec)
    return spec, contents(folder / "store")


def sigkill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@contextmanager
def one_killed(root: Path, kill: Callable[[int], None] = sigkill) -> Iterator[None]:
    """Kill the process that first saves a checkpoint in the store, as its claims name it."""
    killed = list[int]()

    def watch() -> None:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            for file in root.glob(CHECKPOINT):
                for claim in root.glob(f"claims/train/{file.relative_to(root).parts[1]}/*.json"):
                    with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                        pid = read_pid(claim)
                        kill(pid)
                        killed.append(pid)
                        return
            time.sleep(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert killed


def read_pid(claim: Path) -> int:
    return int(json.loads(claim.read_text())["pid"])


WORKERS = max(2, os.cpu_count() or 1)  # so that each has one thread
CHECKPOINT = "train/*/checkpoints/*/trainer_state.json"


def assert_all_but_the_dead_told(output: str) -> None:
    """The base stage may have been the dead worker's, of which nothing is told."""
    assert ran(output) | {"base": 1} == {"data": 1, "base": 1, "train": 4, "evaluate": 4, "probe": 4}


def test_workers_share_the_cells_and_a_killed_one_is_replaced(study, tmp_path: Path) -> None:
    spec, expected = study
    root = tmp_path / "store"
    with one_killed(root):
        output = engine("execute", spec, "--store", root, "--executor", "local", "--workers", WORKERS).output
    assert_all_but_the_dead_told(output)
    assert told(output, "SIGKILL", "1 of 2")
    assert_same(contents(root), expected)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else a busy machine leaves its workers nothing
    yield ray
    ray.shutdown()


def on_ray(spec: Path, root: Path, *settings: str) -> str:
    settings = (*settings, "batch=2", "memory=0.1")
    flags = [flag for setting in settings for flag in ("--set", f"executor.{setting}")]
    return engine("execute", spec, "--store", root, "--executor", "ray", *flags).output


def test_a_ray_task_that_is_killed_is_run_again(study, tmp_path: Path, ray: Any) -> None:
    spec, expected = study
    root = tmp_path / "store"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    with one_killed(root):
        output = on_ray(spec, root)
    assert told(output, "Ray worker", "1 of 2")
    assert_all_but_the_dead_told(output)
    assert_same(contents(root), expected)


def test_a_ray_node_that_is_killed_is_done_without(study, tmp_path: Path, ray: Any) -> None:
    """Two nodes beside the head, one of which goes down while it trains; its units go on at the other."""
    from ray.cluster_utils import Cluster

    spec, expected = study
    root = tmp_path / "store"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = {raylet_of(node): node for node in (cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1))}

    def remove(pid: int) -> None:
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        cluster.remove_node(nodes[int(parent)], allow_graceful=False)

    try:
        with one_killed(root, remove):
            on_ray(spec, root, f"address={cluster.address}")
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert_same(contents(root), expected)


def raylet_of(node: Any) -> int:
    """The process whose children are a node's workers."""
    return int(node.all_processes["raylet"][0].process.pid)


def test_jobs_of_submitit_come_to_the_same_and_a_killed_one_is_told(
    study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit", reason="the extra `slurm` is not installed")
    spec, expected = study
    root = tmp_path / "store"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    local = ("--executor", "slurm", "--set", "executor.cluster=local", "--set", "executor.batch=4")
    with one_killed(root):
        output = engine("execute", spec, "--store", root, *local).output
    assert_all_but_the_dead_told(output)
    assert "train  job " in output and "ended without a result, state " in output
    assert "_log.err; trying again, 1 of 2" in output
    assert_same(contents(root), expected)


def test_a_job_that_is_warned_saves_and_is_queued_again(
    study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As SLURM does before a job's time is up: no periodic checkpoint is due when the signal comes."""
    pytest.importorskip("submitit", reason="the extra `slurm` is not installed")
    spec, expected = study
    root, steps = tmp_path / "store", ("--set", "train.checkpoint_every=1000")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    saved = []

    def warn() -> None:
        while not (claims := list(root.glob("claims/train/*/*.json"))):
            time.sleep(0.01)
        os.kill(read_pid(claims[0]), signal.SIGUSR2)
        while not saved:
            saved.extend(root.glob(CHECKPOINT))
            time.sleep(0.01)

    thread = threading.Thread(target=warn, daemon=True)
    thread.start()
    local = ("--executor", "slurm", "--set", "executor.cluster=local", "--set", "executor.batch=4")
    output = engine("execute", spec, "--store", root, *local, *steps).output
    thread.join(10)
    assert (
        saved and "4 train, 4 evaluate, 4 probe" in output
    )  # what the job did before the warning is not told
    assert "Requeued job" in "".join(log.read_text() for log in root.glob("slurm/*_log.out"))
    assert_same(contents(root), expected)


def test_a_machine_without_slurm_or_its_accounting_is_told(
    study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit", reason="the extra `slurm` is not installed")
    call = ("execute", study[0], "--store", tmp_path / "store", "--executor", "slurm")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert told(engine(*call, code=2).output, "executor.kind", '"slurm"', "sbatch")
    for name, script in {"sbatch": "", "sacct": "echo accounting is off >&2; exit 1"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    assert told(engine(*call, code=2).output, "sacct", "accounting is off")


def test_a_stop_gives_workers_the_time_to_save(study, tmp_path: Path) -> None:
    """The training's newest checkpoint is the step that was under way, and no claim is left."""
    spec, _ = study
    root, stop = tmp_path / "store", StopRequest()
    plan = make_plan(resolve(load_spec(spec, ["train.steps=2000", "train.checkpoint_every=2000"])), root)
    executor = LocalExecutor(Job(plan.matrix.spec, plan.root, Options(), 60.0), stop, 60.0, slots(1, 1))
    executor.submit(units(plan, plan.cells, 1)[0], Resources())

    def request() -> None:
        while not list(root.glob("claims/train/*/*.json")):
            time.sleep(0.01)
        time.sleep(0.3)
        stop.requested = True

    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    with pytest.raises(Interrupted):
        list(executor.as_completed())
    thread.join()
    (checkpoint,) = root.glob(CHECKPOINT)
    assert int(checkpoint.parts[-2].removeprefix("checkpoint-")) < 2000
    assert list(root.glob("claims/*/*")) == []


class Scripted:
    """An executor whose units end as they are told to; no process is needed to lose or hold one."""

    def __init__(self, *ends: Outcome | str) -> None:
        self.ends, self.queue, self.submitted, self.cancelled = list(ends), [], [], False
        self.rounds = 0

    def submit(self, work: Work, resources: Resources) -> None:
        assert resources.memory > 0
        self.queue.append(work)
        self.submitted.append([cell.index for cell in work.cells])
        assert len(pickle.dumps(work)) < 5000  # nothing but names travels

    def as_completed(self):
        self.rounds += 1
        while self.queue:
            end, work = self.ends.pop(0), self.queue.pop(0)
            yield Finished(work, None, end) if isinstance(end, str) else Finished(work, end)

    def cancel(self) -> None:
        self.cancelled = True


def coordinate(
    spec: Path,
    root: Path,
    executor: Scripted,
    *,
    batch: int = 4,
    cells: Sequence[PlannedCell] = (),
    **policy: object,
) -> Outcome:
    plan = make_plan(resolve(load_spec(spec)), root)
    settings = Policy(poll=0.0, **policy)
    cost = estimator(plan)
    coordinator = Scheduler(
        plan,
        Ledger(root),
        executor,
        settings,
        Display(),
        StopRequest(),
        cost,
        partial(progress_on_disk, place_of(root)),
    )
    outcome = coordinator.run(cells or plan.cells, batch)
    assert executor.cancelled
    return outcome


def test_a_unit_that_always_kills_its_worker_is_recorded_and_the_rest_goes_on(study, tmp_path: Path) -> None:
    executor = Scripted("killed", "killed", "killed", Outcome())
    ledger = Ledger(tmp_path)
    spec, _ = study
    (_, _, longest, _) = make_plan(resolve(load_spec(spec)), tmp_path).cells
    for stage in ("data", "base"):
        ledger.commit(stage, longest.keys[stage], {})
    outcome = coordinate(spec, tmp_path, executor, retries=2)
    assert executor.submitted == [[2, 3, 0, 1]] * 3 + [[3, 0, 1]]
    assert outcome.failed == [(2, "train", "lost 3 times, the last time: killed")]
    assert ledger.record("train", longest.keys["train"], "failed")["error"] == outcome.failed[0][2]


def test_a_unit_may_be_lost_as_often_as_it_likes_while_it_comes_further(study, tmp_path: Path) -> None:
    """What is counted are the deaths at one stage, not those of a unit, of which a large one meets more."""
    spec, _ = study
    ledger, plan = Ledger(tmp_path), make_plan(resolve(load_spec(spec)), tmp_path)

    class Progressing(Scripted):
        def as_completed(self):
            stages = iter(("data", "base", "train", "evaluate"))
            for finished in super().as_completed():
                stage = next(stages)
                ledger.commit(stage, finished.work.cells[0].keys[stage], {})
                yield finished

    executor = Progressing("killed", "killed", "killed", Outcome())
    assert coordinate(spec, tmp_path, executor, batch=1, cells=plan.cells[:1], retries=1).failed == []
    assert executor.submitted == [[0]] * 4


@pytest.mark.parametrize(("steps", "failed"), [([1, 2, 3, 4], False), ([1, 2, 2, 3], True)])
def test_deaths_count_from_where_a_stage_last_came_further(
    study, tmp_path: Path, steps: list[int], failed: bool
) -> None:
    """Workers may be taken away at any time if each leaves a new checkpoint."""
    spec, _ = study
    ledger, plan = Ledger(tmp_path), make_plan(resolve(load_spec(spec)), tmp_path)
    cell = plan.cells[0]
    for stage in ("data", "base"):
        ledger.commit(stage, cell.keys[stage], {})

    class Saving(Scripted):
        def as_completed(self):
            for step, finished in zip([*steps, 0], super().as_completed(), strict=False):
                state = (
                    tmp_path / f"train/{cell.keys['train']}/checkpoints/checkpoint-{step}/trainer_state.json"
                )
                state.parent.mkdir(parents=True, exist_ok=True)
                state.write_text("{}")
                yield finished

    executor = Saving(*["killed"] * 4, Outcome())
    outcome = coordinate(spec, tmp_path, executor, batch=1, cells=[cell], retries=1)
    assert outcome.failed == ([(0, "train", "lost 2 times, the last time: killed")] if failed else [])
    assert len(executor.submitted) == (3 if failed else 5)


def test_a_probe_and_a_lens_have_come_as_far_as_is_on_disk(tmp_path: Path) -> None:
    root, key = place_of(tmp_path), "0" * 32
    marks = [{stage: progress_on_disk(root, stage, key) for stage in STAGES}]
    write_json(root, progress_name(key), {"family": "f", "row": 0, "items": 8})
    (file := CheckpointFile.of(root.under(f"lens/{key}")).file).parent.mkdir(parents=True)
    file.write_bytes(b"")
    marks.append({stage: progress_on_disk(root, stage, key) for stage in STAGES})
    assert set(marks[0].values()) == {None}
    assert {stage for stage in STAGES if marks[0][stage] != marks[1][stage]} == {
        "lens", "probe", "along", "intervene"
    }  # fmt: skip


def test_what_is_held_is_taken_up_again_or_left(study, tmp_path: Path) -> None:
    spec, _ = study
    executor = Scripted(Outcome(held=[1, 2]), Outcome(held=[2]), Outcome())
    assert coordinate(spec, tmp_path, executor).held == []
    assert executor.submitted == [[2, 3, 0, 1], [2, 1], [2]]
    executor = Scripted(*(Outcome(held=[n]) for n in (2, 3, 0, 1)))
    assert coordinate(spec, tmp_path, executor, batch=1, wait=False).held == [2, 3, 0, 1]


def test_what_is_held_goes_on_while_others_still_run(study, tmp_path: Path) -> None:
    """A unit whose worker's claim outlives it has to wait for the lease, and not for the last unit of all."""

    class Ticking(Scripted):
        def as_completed(self):
            for finished in super().as_completed():
                yield from (finished, None)

    executor = Ticking(Outcome(held=[2]), Outcome(), Outcome(), Outcome(), Outcome())
    assert coordinate(study[0], tmp_path, executor, batch=1).held == []
    assert executor.submitted == [[2], [3], [0], [1], [2]]
    assert executor.rounds == 1


def test_a_lost_unit_waits_as_a_whole_for_its_dead_workers_claim(study, tmp_path: Path) -> None:
    spec, _ = study
    key = make_plan(resolve(load_spec(spec)), tmp_path).cells[2].keys["train"]
    dead = Ledger(tmp_path)
    assert dead.start("train", key) is not None

    class Releasing(Scripted):
        def as_completed(self):
            for finished in super().as_completed():
                yield finished
                if finished.outcome is None:
                    assert self.queue == []
                    dead.release("train", key)
                    yield None

    executor = Releasing("killed", Outcome())
    coordinate(spec, tmp_path, executor, retries=1)
    assert executor.submitted == [[2, 3, 0, 1]] * 2


def test_long_units_go_first_and_models_stay_together(study, tmp_path: Path) -> None:
    plan = make_plan(resolve(load_spec(study[0])), tmp_path)
    lengths = {0: 1.0, 1: 3.0, 2: 2.0, 3: 3.0}

    def order(batch: int) -> list[list[int]]:
        works = units(plan, plan.cells, batch, lambda cells: Cost(flops=lengths[next(iter(cells)).index]))
        return [[cell.index for cell in work.cells] for work in works]

    assert order(1) == [[1], [3], [2], [0]]
    assert order(3) == [[1, 3, 2], [0]]


def test_a_worker_takes_units_of_its_model_first(study, tmp_path: Path) -> None:
    cells = make_plan(resolve(load_spec(study[0])), tmp_path).cells
    queue = Queue()
    works = [Work((cell,), model, rank) for rank, (cell, model) in enumerate(zip(cells, "abba", strict=True))]
    for work in works:
        queue.add(work)
    assert [queue.take(model, "me") for model in ("b", "c", None, "a")] == [works[n] for n in (1, 0, 2, 3)]
    assert not queue


def test_a_unit_that_is_given_again_has_the_place_that_it_had(study, tmp_path: Path) -> None:
    plan = make_plan(resolve(load_spec(study[0])), tmp_path)
    queue, works = Queue(), units(plan, plan.cells, 1)
    for work in works:
        queue.add(work)
    lost = queue.take(None, "broken")
    assert lost == works[0]
    queue.take(None, "whole")
    queue.add(lost)
    assert queue.take(None, "broken") == works[2]  # which it has not lost yet
    assert queue.take(None, "whole") == lost
    queue.add(lost)
    queue.add(works[2])
    assert queue.take(None, "whole") == works[2]
    assert [queue.take(None, "whole") for _ in range(2)] == [works[3], lost]  # there is nothing else
    assert not queue


def test_the_first_failure_can_end_it(study, tmp_path: Path) -> None:
    spec, _ = study
    executor = Scripted(Outcome(failed=[(0, "train", "no")]))
    assert coordinate(spec, tmp_path, executor, batch=1, fail_fast=True).failed == [(0, "train", "no")]


def test_the_spec_wins_over_the_users_file_and_the_command_line_over_both(
    study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = load_spec(study[0], ["executor.retries=7", "executor.grace=1"])
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert executor_settings(spec, {"workers": None}).workers is None
    file = tmp_path / "ablation-engine/executor.toml"
    file.parent.mkdir()
    file.write_text("workers = 3\nretries = 1\ngrace = 2\n")
    settings = executor_settings(spec, {"grace": 3.0, "workers": None})
    assert (settings.workers, settings.retries, settings.grace) == (3, 7, 3.0)
    file.write_text("\nworker = 3\n")
    with pytest.raises(SpecError, match=facts("executor.toml:2:1", "worker", '"workers"')):
        executor_settings(spec, {})


def test_the_executor_is_no_part_of_a_key_and_no_factor(study) -> None:
    spec, _ = study
    plain = make_plan(resolve(load_spec(spec))).cells
    assert make_plan(resolve(load_spec(spec, ['executor.kind="ray"', "executor.batch=3"]))).cells == plain
    with pytest.raises(SpecError, match="unknown table `executor`"):
        resolve(load_spec(spec, ['factors.f.path="executor.batch"', "factors.f.values=[1, 2]"]))


def test_a_missing_package_is_named(study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.running.executors import make

    job, _ = job_of(study[0], tmp_path)
    missing = make.ExecutorKind(make._ray, "no_such_package")
    monkeypatch.setitem(make.EXECUTORS._own, "ray", missing)
    settings = executor_settings(job.spec, {"kind": "ray"})
    with pytest.raises(UsageError, match=facts("no_such_package", "ablation-engine[ray]")):
        make.make_executor(job, settings, StopRequest(), Resources())
    assert read_manifests(tmp_path) == {}


def test_gpus_are_dealt_out_to_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.running.executors import local

    monkeypatch.setattr(local, "visible_gpus", lambda: ["2", "5"])
    shown = [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots(4, 2)]
    assert shown == ["2", "2", "5", "5"]
    monkeypatch.setattr(local, "visible_gpus", list)
    assert [slot.environment for slot in slots(2, 1)] == [{}, {}]
    assert slots(2, 1)[0].threads == max(1, cpu_share().count // 2)
