"""Two processes that share one unit's model come to the results of one, and to its end whatever happens."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rank_checks
from children import assert_same, contents, run, start
from commands import engine, ran
from facts import facts, told
from safetensors.torch import load
from small_study import small_spec

from engine.errors import UsageError
from engine.planning.estimate import estimate
from engine.planning.executor_settings import executor_settings
from engine.planning.plan import make_plan
from engine.process_group.alone import ProcessGroup
from engine.running.executors.launch import Launcher
from engine.running.executors.local import slots
from engine.stages.training.files import newest_checkpoint
from specs import load_spec, resolve
from store import Ledger, open_store

MORE = """
[probe]
examples = 4
batch_size = 3
heads = true
activation = true
lens = ["tuned", "jacobian"]
[probe.tuned]
steps = 2
tokens = 60
[probe.jacobian]
skip = 2
max_tokens = 24

[[interventions]]
name = "graft"
kind = "graft"
cells = { target = "label+explanation" }
donor = { target = "label" }
sweep = "below"

[[interventions]]
name = "heads"
kind = "heads"
layers = [1]
ablation = "mean"
"""
TRAIN = """
steps = 4
checkpoint_minutes = 1e-6
accumulation = 2
max_grad_norm = 0.1
gradient_checkpointing = true
"""
TWO = ("--set", "executor.ranks=2", "--set", "executor.batch=2")
ALL = "Ran 1 data, 1 base, 2 train, 2 evaluate, 2 lens, 2 jacobian, 2 probe, 2 intervene"
CHECKPOINT = "train/*/checkpoints/*/trainer_state.json"


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rated_file: Path) -> Path:
    """Two cells; batches of three rows, so that the ranks' parts differ in size."""
    folder = tmp_path_factory.mktemp("study")
    file = small_spec(folder, tiny_model, rated_file, MORE, train=TRAIN)
    text = file.read_text().replace("seeds = [0, 1]", "seeds = [0]")
    text = text.replace("batch_size = 4\nprecision", "batch_size = 3\nprecision")
    scoring = 'scoring = ["loglikelihood", "constrained", "generation"]\nmax_new_tokens = 4'
    file.write_text(text.replace("[evaluate]", f"[evaluate]\n{scoring}"))
    return file


@pytest.fixture(scope="module")
def shared(spec: Path) -> dict[str, object]:
    """What two ranks make of the study."""
    root = spec.parent / "shared"
    assert ALL in engine("execute", spec, "--store", root, *TWO).output
    return contents(root)


def test_two_ranks_come_to_the_results_of_one_process(spec: Path, shared: dict[str, object]) -> None:
    """The same keys; curves, adapters, answers, statistics and interventions up to rounding."""
    run(spec.parent, "execute", spec)
    expected = contents(spec.parent / "store")
    assert shared.keys() == expected.keys()
    for name, value in expected.items():
        found, known = np.asarray(shared[name]), np.asarray(value)
        if name.endswith(".safetensors"):
            left, right = load(shared[name]), load(value)
            assert left.keys() == right.keys()
            assert max(float(weight.abs().max()) for weight in right.values()) > 0.1
            for weight in right:
                np.testing.assert_allclose(left[weight], right[weight], atol=1e-6, err_msg=weight)
        elif known.dtype.kind == "f":
            np.testing.assert_allclose(found, known, rtol=1e-5, atol=2e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(found, known, err_msg=name)


def test_a_killed_rank_loses_nothing(spec: Path, shared: dict[str, object], tmp_path: Path) -> None:
    """The rank that leads nothing is killed in the middle of a training, which goes on to the same bits."""
    root, killed = tmp_path / "store", list[int]()

    def kill() -> None:
        deadline = time.monotonic() + 240
        while not killed and time.monotonic() < deadline:
            if list(root.glob(CHECKPOINT)):
                killed.extend(pid for pid in followers(root) if os.kill(pid, signal.SIGKILL) is None)
            time.sleep(0.002)

    thread = threading.Thread(target=kill)
    thread.start()
    output = engine("execute", spec, "--store", root, *TWO, "--set", "executor.retries=1").output
    thread.join()
    assert len(killed) == 1 and output.count("lost    cell 1/2 target=label, seed=0: train  rank ") == 1
    assert_same(contents(root), shared)


def followers(root: Path) -> list[int]:
    """Name the processes beside the owner of the store's claims: of the same parent."""
    (lead,) = {Ledger(root).place.read(str(file.relative_to(root))) for file in root.glob("claims/train/*/*")}
    import json

    pid = int(json.loads(lead)["pid"])
    parents = {int(file.parent.name): parent_of(file) for file in Path("/proc").glob("[0-9]*/stat")}
    return [other for other, parent in parents.items() if parent == parents[pid] and other != pid]


def parent_of(stat: Path) -> int:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has ended meanwhile
        return 0


def test_a_stopped_training_goes_on_from_its_checkpoint(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By any number of ranks, as none is part of a key: here by one process."""
    root = tmp_path / "store"
    one = ("execute", spec, "--store", root, "--max-cells", 1, "--set", "train.steps=500")
    child = start(tmp_path, *one, *TWO, "--set", "train.checkpoint_minutes=60")
    deadline = time.monotonic() + 240
    while not list(root.glob("claims/train/*/*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(child.pid or 0, signal.SIGTERM)
    child.join(300)
    assert child.exitcode == 130, (tmp_path / "output").read_text()
    (checkpoint,) = root.glob(CHECKPOINT)
    stopped = int(checkpoint.parts[-2].removeprefix("checkpoint-"))
    assert 0 < stopped < 500 and list(root.glob("claims/*/*")) == []
    taken_up: list[str | None] = []

    def noted(scratch: Path) -> str | None:
        taken_up.append(newest_checkpoint(scratch))
        return taken_up[-1]

    monkeypatch.setattr("engine.stages.training.train.newest_checkpoint", noted)
    engine(*one)
    assert taken_up == [str(checkpoint.parent)]
    assert np.isfinite(open_store(root)["small/train"]["loss"]).all()


def test_a_cell_that_fails_says_why_and_the_others_run(
    tmp_path: Path, tiny_model: Path, rated_file: Path
) -> None:
    more = '[factors.dora]\npath = "lora.dora"\nvalues = [true, false]\n'
    spec = small_spec(tmp_path, tiny_model, rated_file, more)
    only = ("--only", "seed=0", "--only", "target=label")
    output = engine("execute", spec, *only, *TWO, code=1).output
    assert ran(output) == dict.fromkeys(("data", "base", "train", "evaluate", "probe"), 1)
    assert told(output, "train", "UsageError", "lora.dora", "true")


def test_each_rank_holds_its_share_of_the_blocks(tmp_path: Path, tiny_model: Path) -> None:
    """A layer of 32 x 32 and 32 x 64 matrices splits evenly; embedding, norm and unembedding stay whole."""
    left, right = rank_checks.together(rank_checks.share_of_a_model, tmp_path, tiny_model)
    alone = rank_checks.share_of_a_model(ProcessGroup(), tiny_model)
    assert left["blocks"] == right["blocks"] == alone["blocks"] / 2
    assert left["rest"] == right["rest"] == alone["rest"] == 2 * 320 * 32 + 32
    assert left["trained"] == right["trained"] == alone["trained"]
    for each in (left, right):
        np.testing.assert_allclose(each["logits"], alone["logits"], atol=1e-6)
        assert each["as before"]
        dora, inside, nothing = each["refused"]
        assert dora.startswith("lora.dora: found true")
        assert inside.startswith("lora.modules_to_save: found model.layers.0.mlp.modules_to_save.default.")
        assert nothing.startswith("lora.target_modules: found ['nothing']")


def test_ranks_agree(tmp_path: Path) -> None:
    left, right = rank_checks.together(rank_checks.agreement, tmp_path)
    assert left["drawn"] != right["drawn"]
    for each in (left, right):
        assert not each["asked before"] and each["asked"] and each["led"] == 0
        assert each["drawn after"] == left["drawn after"] and each["failed"] == "of rank 0"
    assert (left["rows"], right["rows"]) == ([1, 3], [2])
    assert (left["of one row"], right["of one row"]) == ([1], [-100])


def test_a_rank_that_fails_alone_ends_itself_and_so_the_others(tmp_path: Path) -> None:
    left, right = rank_checks.together(rank_checks.failure_of_one, tmp_path)
    assert right == "rank 1: MemoryError: no room"
    assert left.startswith("rank 0: ")


def settings_of(spec: Path, *overrides: str) -> Any:
    return executor_settings(load_spec(spec, ["executor.ranks=2", *overrides]), {})


def test_what_cannot_be_is_refused(spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=facts("workers_per_gpu", "2", "executor.ranks = 2", "1")):
        settings_of(spec, "executor.workers_per_gpu=2")
    from engine.models import loading as models
    from engine.running.executors import launch, local
    from specs.tables.experiment import Model

    with pytest.raises(UsageError, match=facts("quantization", '"nf4"', "executor.ranks = 2")):
        models.load(Model(id="none", quantization="nf4"), ProcessGroup(0, 2))
    monkeypatch.setattr(launch, "visible_gpus", lambda: ["3"])
    from jobs import job_of

    job, _ = job_of(spec, tmp_path)
    with pytest.raises(UsageError, match=facts("executor.ranks", "2", "1 GPUs")):
        Launcher(job.__class__(job.spec, job.root, job.options, 60.0, 2), None)._gpus()
    monkeypatch.setattr(local, "visible_gpus", lambda: ["2", "5", "7", "8"])
    shown = [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots(3, 1, 2)]
    assert shown == ["2,5", "7,8", "2,5"]


def test_the_number_of_ranks_is_no_part_of_a_key_and_of_the_estimate(spec: Path) -> None:
    plain = make_plan(resolve(load_spec(spec)), spec.parent / "none")
    ranked = make_plan(resolve(load_spec(spec, ["executor.ranks=2"])), spec.parent / "none")
    assert ranked.cells == plain.cells
    one, two = estimate(plain), estimate(ranked)
    assert one is not None and two is not None
    blocks = 3 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 64 + 2 * 32)
    assert one["evaluate"].memory - two["evaluate"].memory == 4 * blocks / 2
    assert one["train"].memory - two["train"].memory > 4 * blocks / 2  # and half of the batch
