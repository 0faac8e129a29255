"""A training side by side with others is the training alone: same adapter, log, checkpoints and stops."""

from __future__ import annotations

import os
import random
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attrs import evolve
from joint_gradients import Cell, adapted, alone, asked
from safetensors.torch import load_file
from threadpoolctl import ThreadpoolController
from tiny_models import build, without_dropout
from torch.optim.optimizer import register_optimizer_step_pre_hook
from trainings import interrupted, load, many, saved_weights, together, train
from transformers import set_seed

from benchmarks.operators import Operators
from engine.errors import EngineError, Interrupted
from engine.progress import StopRequest
from engine.stages.training.arguments import global_seed
from engine.stages.training.files import Trained
from engine.stages.training.loss import Objective
from engine.stages.training.together.joint_passes import JointPasses
from engine.stages.training.tracker_runs import TrackerRun
from engine.stages.training.trackers import FOLDERS, VARIABLES
from specs.tables.experiment import Lora, Train

ROWS = many(14)
BASE = Train(steps=20, batch_size=2, precision="float32", lr=3e-3)
TRAININGS: dict[str, dict[str, Any]] = {
    "plain": {"examples": ROWS[:9], "lora": Lora(r=2), "settings": BASE},
    "dropout": {
        "examples": ROWS[2:],
        "lora": Lora(r=4, alpha=5.0, dropout=0.3),
        "settings": evolve(BASE, lr=1e-2, schedule="cosine", warmup=0.2, weight_decay=0.1),
        "seed": 3,
    },
    "accumulated": {
        "examples": ROWS[5:12],
        "lora": Lora(r=3, rslora=True),
        "settings": evolve(BASE, accumulation=2, max_grad_norm=0.1),
        "objective": Objective((2.0, 0.5, 1.0), "segments"),
    },
    "in epochs": {"examples": ROWS[:5], "lora": Lora(r=1), "settings": evolve(BASE, steps=None, epochs=2.0)},
    "stopped early": {
        "examples": ROWS[:5],
        "validation": ROWS[5:12],
        "lora": Lora(r=2, dropout=0.1),
        "settings": evolve(BASE, lr=0.05, schedule="constant", early_stopping=1, validate_every=2),
        "seed": 1,
    },
    "micro batches": {
        "examples": ROWS,
        "lora": Lora(r=2, dropout=0.2),
        "settings": evolve(BASE, batch_size=3, micro_batch=1),
    },
    "kept along": {
        "examples": ROWS[3:11],
        "lora": Lora(r=2, alpha=1.0),
        "settings": evolve(BASE, tokens=150, steps=None),
        "keep": lambda planned: (2, planned - 1),
    },
}


def small_model() -> Any:
    options = {"vocab_size": 320, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    return build("GPT2Config", without_dropout("GPT2Config", options))


@pytest.fixture(scope="module")
def base() -> Any:
    """A model that does all in float64."""
    return small_model().double()


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits in float64 as well, so that rounding hides nothing."""
    monkeypatch.setattr(
        "engine.models.lens.lens_logits", lambda hidden, head: torch.nn.functional.linear(hidden, head.tokens)
    )


@pytest.fixture(scope="module")
def llama(tiny_model: Path) -> Any:
    return load(tiny_model)


def each_alone(
    base: Any, tokenizer: Any, folder: Path, trainings: Mapping[str, Mapping[str, Any]]
) -> dict[str, Trained]:
    return {name: train(base, tokenizer, folder / name, **options) for name, options in trainings.items()}


def difference(left: Path, right: Path, name: str = "adapter/adapter_model.safetensors") -> float:
    """The largest difference of two adapters' weights, by the largest weight."""
    one, other = load_file(left / name), load_file(right / name)
    assert one.keys() == other.keys()
    size = max(weight.abs().max().item() for weight in other.values())
    return max((one[name] - other[name]).abs().max().item() for name in one) / size


def assert_same(found: Trained | Exception, expected: Trained, within: float) -> None:
    """All that is told of a training, but for the time that it took."""
    assert isinstance(found, Trained), found
    for name, curve in expected.curves.items():
        np.testing.assert_allclose(found.curves[name], curve, rtol=within, atol=1e-6, err_msg=name)
    assert found.summary.keys() == expected.summary.keys()
    for name in expected.summary.keys() - {"train_seconds"}:
        assert found.summary[name] == pytest.approx(expected.summary[name], rel=within), name
    assert (found.modules, found.planned) == (expected.modules, expected.planned)


def test_each_adapter_is_that_of_training_alone(base: Any, tokenizer: Any, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    expected = each_alone(base, tokenizer, tmp_path / "alone", TRAININGS)
    assert {int(trained.summary["train_steps"]) for trained in expected.values()} >= {6, 20}
    found = together(base, tokenizer, tmp_path / "together", TRAININGS)
    for name, trained in expected.items():
        assert_same(found[name], trained, 1e-6)
        assert difference(tmp_path / "together" / name, tmp_path / "alone" / name) < 1e-9, name
    assert found["plain"].passes["together"] == len(TRAININGS)
    for file in ("adapter-2.safetensors",):
        folders = (tmp_path / side / "kept along" for side in ("together", "alone"))
        assert difference(*folders, file) < 1e-9
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())
    assert not any(parameter.requires_grad for parameter in base.parameters())


def openmp_threads() -> int:
    """How many threads OpenMP has for who asks, at most; 0 without OpenMP."""
    libraries = ThreadpoolController().info()
    return max((each["num_threads"] for each in libraries if each["user_api"] == "openmp"), default=0)


def test_only_passes_have_more_than_one_thread(tokenizer: Any, tmp_path: Path) -> None:
    """Common ones, those of a training that goes alone, and validations; then nothing is left of it."""
    passes: set[tuple[bool, bool, int]] = set()
    steps: set[int] = set()

    def of_pass(*_: Any) -> None:
        in_main = threading.current_thread() is threading.main_thread()
        passes.add((in_main, torch.is_grad_enabled(), openmp_threads()))

    model = small_model()
    model.transformer.h[0].register_forward_pre_hook(of_pass)
    alone = TRAININGS["plain"] | {"lora": Lora(r=2, dora=True)}
    names = "plain", "dropout", "stopped early"
    hook = register_optimizer_step_pre_hook(lambda *_: steps.add(openmp_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        if not openmp_threads():
            pytest.skip("this build of torch computes without OpenMP")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = together(
                model, tokenizer, tmp_path, {name: TRAININGS[name] for name in names} | {"alone": alone}
            )
        assert openmp_threads() == 2
    finally:
        torch.set_num_threads(before)
        hook.remove()
    assert all(isinstance(trained, Trained) for trained in found.values()), found
    assert passes == {(True, True, 2), (True, False, 2), (False, True, 2), (False, False, 2)}
    assert steps == {1}


def test_one_that_fails_takes_no_other_with_it(base: Any, tokenizer: Any, tmp_path: Path) -> None:
    """By a rate at which its weights become infinite, at its validation, or before its first step."""
    worst = evolve(BASE, lr=1e200, schedule="constant", warmup=0.0)
    lacking = {"examples": ROWS[:5], "settings": evolve(BASE, early_stopping=1)}
    trainings = {
        "diverges": TRAININGS["plain"] | {"settings": worst},
        "plain": TRAININGS["plain"],
        "lacks": lacking,
        "dropout": TRAININGS["dropout"],
    }
    expected = each_alone(
        base, tokenizer, tmp_path / "alone", {n: trainings[n] for n in ("plain", "dropout")}
    )
    found = together(base, tokenizer, tmp_path / "together", trainings)
    for name, trained in expected.items():
        assert_same(found[name], trained, 1e-6)
        assert difference(tmp_path / "together" / name, tmp_path / "alone" / name) < 1e-9
    assert isinstance(found["diverges"], EngineError) and "the training has diverged" in str(
        found["diverges"]
    )
    assert isinstance(found["lacks"], EngineError) and "validation" in str(found["lacks"])


def stopping_after(step: int, stop: StopRequest) -> dict[str, Any]:
    """Options of a training that asks for all to stop once it has done a step."""

    def report(done: int, total: int, text: str) -> None:
        stop.requested |= done == step

    return {"stop": stop, "report": report}


STOPPED = ("plain", "dropout", "accumulated", "stopped early", "micro batches")


@pytest.mark.parametrize("first", ["together", "alone"])
def test_a_stopped_training_goes_on_together_or_alone(
    base: Any, tokenizer: Any, tmp_path: Path, first: str
) -> None:
    """Checkpoints are the same: of dropout, moments, schedule, the best adapter and the log so far."""
    trainings = {name: TRAININGS[name] for name in STOPPED}
    expected = each_alone(base, tokenizer, tmp_path / "alone", trainings)
    if first == "together":
        stop = StopRequest()
        asking = {name: options | {"stop": stop} for name, options in trainings.items()}
        asking["dropout"] |= stopping_after(3, stop)
        found = together(base, tokenizer, tmp_path / "stopped", asking)
        assert all(isinstance(error, Interrupted) for error in found.values())
        assert all((tmp_path / "stopped" / name / "checkpoints").is_dir() for name in trainings)
        resumed: Any = each_alone(base, tokenizer, tmp_path / "stopped", trainings)
    else:
        for step, (name, options) in enumerate(trainings.items(), 2):  # each has come as far as it has
            interrupted(step, base, tokenizer, tmp_path / "stopped" / name, **options)
        resumed = together(base, tokenizer, tmp_path / "stopped", trainings)
    for name, trained in expected.items():
        assert_same(resumed[name], trained, 1e-6)
        assert difference(tmp_path / "stopped" / name, tmp_path / "alone" / name) < 1e-9, name


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_in_each_precision_the_first_steps_agree(
    llama: Any, tokenizer: Any, tmp_path: Path, precision: str
) -> None:
    """As far as its rounding lets them: half precision goes other ways soon."""
    settings = evolve(BASE, steps=3, precision=precision, lr=1e-3, warmup=0.0, schedule="constant")
    trainings = {
        f"{rank}": {"examples": ROWS[rank:], "lora": Lora(r=rank, alpha=3.0), "settings": settings}
        for rank in (1, 2, 4)
    }
    expected = each_alone(llama, tokenizer, tmp_path / "alone", trainings)
    found = together(llama, tokenizer, tmp_path / "together", trainings)
    within = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-3}[precision]
    for name, trained in expected.items():
        result = found[name]
        assert isinstance(result, Trained), result
        np.testing.assert_allclose(result.curves["loss"], trained.curves["loss"], rtol=within)
        np.testing.assert_allclose(result.curves["grad_norm"], trained.curves["grad_norm"], rtol=10 * within)
        weights = saved_weights(tmp_path / "together" / name)
        assert {weight.dtype for weight in weights.values()} == {torch.float32}


def test_activations_that_are_computed_anew_change_nothing(base: Any, tokenizer: Any, tmp_path: Path) -> None:
    """But dropout would be drawn anew, so a training with it does its own passes, and says so."""
    anew = evolve(BASE, steps=6, gradient_checkpointing=True)
    trainings = {
        name: {**TRAININGS[name], "settings": anew, "lora": evolve(TRAININGS[name]["lora"], dropout=share)}
        for name, share in (("plain", 0.0), ("dropout", 0.2), ("accumulated", 0.0))
    }
    expected = each_alone(base, tokenizer, tmp_path / "alone", trainings)
    with pytest.warns(UserWarning, match="dropout would be drawn anew"):
        found = together(base, tokenizer, tmp_path / "together", trainings)
    for name, trained in expected.items():
        assert_same(found[name], trained, 1e-6)
        assert difference(tmp_path / "together" / name, tmp_path / "alone" / name) < 1e-9, name


@pytest.mark.parametrize(
    "lora",
    [{"dora": True}, {"target_modules": ["c_attn"], "modules_to_save": ["ln_f"]}],
    ids=["dora", "norm"],
)
def test_what_cannot_go_along_is_trained_in_its_turns(
    base: Any, tokenizer: Any, tmp_path: Path, lora: dict[str, Any]
) -> None:
    trainings = {
        "plain": TRAININGS["plain"],
        "other": TRAININGS["dropout"] | {"lora": Lora(r=2, **lora)},
        "dropout": TRAININGS["dropout"],
    }
    expected = each_alone(base, tokenizer, tmp_path / "alone", trainings)
    with pytest.warns(
        UserWarning, match="1 training cannot go beside others: .* is no matrix of a plain"
    ) as told:
        found = together(base, tokenizer, tmp_path / "together", trainings)
    assert sum("beside others" in str(warning.message) for warning in told) == 1
    for name, trained in expected.items():
        assert_same(found[name], trained, 1e-6)
        assert difference(tmp_path / "together" / name, tmp_path / "alone" / name) < 1e-9, name


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("rows", [4, 2])
def test_full_memory_lets_fewer_go_together(
    base: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, backward: bool
) -> None:
    """Of four trainings with two rows each; where two are too many, each goes on by itself."""
    names = ("plain", "dropout", "in epochs", "kept along")
    trainings = {name: TRAININGS[name] for name in names}
    expected = each_alone(base, tokenizer, tmp_path / "alone", trainings)

    def full(_gradient: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def watch(_module: Any, _arguments: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        if len(hidden) > rows and hidden.requires_grad:
            hidden.register_hook(full) if backward else full(None)

    hook = base.transformer.h[1].register_forward_hook(watch)
    with pytest.warns(UserWarning, match="memory was full with 4 trainings at once; they go on 2 at once"):
        found = together(base, tokenizer, tmp_path / "together", trainings)
    hook.remove()
    for name, trained in expected.items():
        assert_same(found[name], trained, 1e-6)
        assert found[name].passes["out_of_memory"] == []
        assert difference(tmp_path / "together" / name, tmp_path / "alone" / name) < 1e-9, name


@pytest.mark.parametrize("lasting", [False, True])
def test_an_error_of_a_common_pass_leaves_each_to_its_own(
    base: Any, tokenizer: Any, tmp_path: Path, lasting: bool
) -> None:
    """Once, they go on together; twice, with a line that says why, one by one; either way to the same."""
    trainings = {name: TRAININGS[name] for name in ("plain", "dropout", "accumulated")}
    expected = each_alone(base, tokenizer, tmp_path / "alone", trainings)
    seen: list[int] = []

    def fail(_module: Any, arguments: Any) -> None:
        seen.append(len(arguments[0]))
        if arguments[0].shape[0] == 6 and arguments[0].requires_grad and (lasting or seen.count(6) == 4):
            raise RuntimeError("no such shape\nand more")

    hook = base.transformer.h[1].register_forward_pre_hook(fail)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = together(base, tokenizer, tmp_path / "together", trainings)
    hook.remove()
    lines = [str(each.message) for each in caught if "executor.together" in str(each.message)]
    assert len(lines) == lasting
    assert all(
        "3 trainings cannot go beside others: RuntimeError: no such shape; they" in line for line in lines
    )
    for name, trained in expected.items():
        assert_same(found[name], trained, 1e-6)
        assert difference(tmp_path / "together" / name, tmp_path / "alone" / name) < 1e-9, name


def test_trackers_write_to_each_trainings_own_folder(
    base: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    settings = evolve(BASE, steps=2, report_to=["tensorboard"])
    trainings = {
        name: {
            **TRAININGS["plain"], "settings": settings, "run": TrackerRun("study", {"level": name}, name * 32)
        }
        for name in ("a", "b")
    }  # fmt: skip
    found = together(base, tokenizer, tmp_path, trainings)
    assert all(isinstance(trained, Trained) for trained in found.values()), found
    for name in trainings:
        (file,) = (tmp_path / name / "logs").rglob("events.out.tfevents.*")
        assert file.stat().st_size > 100
    assert not set(VARIABLES) & set(os.environ)


def test_the_variables_of_trackers_are_all_known() -> None:
    run = TrackerRun("study", {"level": "a"}, "b" * 32)
    assert {*FOLDERS, *run.environment} == set(VARIABLES)


def test_a_training_draws_nothing_from_pythons_or_numpys_generators(
    base: Any, tokenizer: Any, tmp_path: Path
) -> None:
    """So that they need not be kept apart."""
    train(base, tokenizer, tmp_path, **TRAININGS["dropout"])
    of_python, of_numpy = random.getstate(), np.random.get_state()
    set_seed(global_seed(TRAININGS["dropout"]["seed"]))
    assert random.getstate() == of_python
    assert np.array_equal(np.random.get_state()[1], of_numpy[1]) and np.random.get_state()[2] == of_numpy[2]


def test_a_pass_of_many_takes_little_more_operators_than_a_pass_of_one(llama: Any) -> None:
    """So of each training's share there is little more than its part."""
    cells = [Cell(Lora(r=2), ROWS[number : number + 2]) for number in range(8)]
    models = [adapted(llama, cell, seed) for seed, cell in enumerate(cells)]
    with Operators() as one:
        alone(models[0], cells[0])
    counts = []
    for size in (2, 8):
        wanted = [asked(model, cell) for model, cell in zip(models[:size], cells[:size], strict=True)]
        passes = JointPasses(llama, most=size)
        passes.losses(wanted)  # which builds what later ones use
        with Operators() as counted:
            assert None not in passes.losses(wanted)
        counts.append(counted.number)
    assert counts[0] < 1.3 * one.number
    assert counts[1] < 0.25 * 8 * one.number
