"""Tasks of Inspect: its own numbers of the trained model, as its own provider gives them of the saved one."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import inspect_tasks as support
import numpy as np
import pytest
import torch
from commands import engine, ran
from facts import facts
from trainings import load, train

import store
from engine.errors import DataError, Interrupted, UsageError
from engine.models.base_model import as_it_was
from engine.process_group.alone import ALONE
from engine.stages.inspect_scores import inspect_scores
from engine.stages.inspect_tasks import ask, check_inspect
from engine.stages.training.files import load_adapter
from specs.tables.evaluate import Evaluate
from specs.tables.experiment import Lora
from specs.tables.inspect_tasks import InspectTasks
from store.backend.locate import place_of

ONE = ("--only", "seed=0", "--only", "target=label")
FURTHER = """

from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import includes
from inspect_ai.tool import tool
from inspect_ai.solver import system_message, use_tools


@task
def several():
    return Task(
        dataset=json_dataset("questions.jsonl"),
        solver=[system_message("be short"), generate()],
        scorer=[count(), includes()],
        config=GenerateConfig(stop_seqs=["o", "rd"], max_tokens=24),
        epochs=2,
    )


@task
def drawn():
    return Task(
        dataset=json_dataset("questions.jsonl"),
        solver=generate(),
        scorer=count(),
        config=GenerateConfig(temperature=2.0, top_p=0.9, max_tokens=24),
        epochs=2,
    )


@task
def ranked():
    config = GenerateConfig(top_k=3)
    return Task(dataset=json_dataset("questions.jsonl"), solver=generate(), scorer=count(), config=config)


@tool
def add():
    async def execute(x: int):
        \"\"\"Add.

        Args:
            x: A number.
        \"\"\"
        return x

    return execute


@task
def armed():
    solver = [use_tools(add()), generate()]
    return Task(dataset=json_dataset("questions.jsonl"), solver=solver, scorer=count())


@task
def broken():
    raise OSError("no data set")
"""


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep Inspect's own records out of the person's folders."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "inspect-data"))


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    support.stand_in(tmp_path / "packages", monkeypatch)
    yield support.write_tasks(tmp_path / "evals")
    for name in [name for name in sys.modules if name.partition(".")[0] == "inspect_ai"]:
        del sys.modules[name]


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """A file of tasks for the real Inspect."""
    pytest.importorskip("inspect_ai")
    return support.write_tasks(tmp_path / "evals", FURTHER)


def settings(file: Path, task: str, batch_size: int = 4, **more: Any) -> Evaluate:
    return Evaluate(inspect=InspectTasks(tasks=[f"{file}@{task}"], **more), batch_size=batch_size)


def asked(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("--set", f"evaluate.inspect.{setting}")]


def passes() -> None:
    """Do nothing before a pass."""


def by_inspects_own(file: Path, task: str, model: Path, tokenizer: Path, log: Path, **options: Any) -> Any:
    """Ask a saved model by Inspect's provider of Hugging Face models, greedily."""
    import inspect_ai

    of_model = {"model_path": str(model), "tokenizer_path": str(tokenizer), "do_sample": False}
    (found,) = inspect_ai.eval(
        f"{file}@{task}", model="hf/saved", model_args=of_model | {"dtype": torch.float32}, log_dir=str(log),
        display="none", ctl_server=False, log_realtime=False, log_level="critical", **options,
    )  # fmt: skip
    assert found.status == "success", found.error
    return inspect_scores([found])


@pytest.mark.parametrize("whole", [[], ["lm_head"]])
def test_numbers_are_those_of_inspects_own_provider(
    real: Path, tiny_model: Path, tokenizer: Any, tmp_path: Path, whole: list[str]
) -> None:
    """Of the saved model with its adapter, and of the one without; sample by sample."""
    base = load(tiny_model)
    train(base, tokenizer, tmp_path, lora=Lora(r=2, modules_to_save=whole))
    answers = settings(real, "letters", samples=7, max_tokens=12)
    of_base, _ = ask(base, tokenizer, answers, passes)
    with as_it_was(base):
        model = load_adapter(base, place_of(tmp_path))
        seen: list[bool] = []
        of_cell, work = ask(model, tokenizer, answers, lambda: seen.append(torch.is_grad_enabled()))
        several, _ = ask(model, tokenizer, settings(real, "several"), passes)
    assert (
        len(seen) == work.passes >= 12 and not any(seen) and work.steps == work.passes - 2
    )  # a window, in two batches
    options: dict[str, Any] = {"limit": 7, "max_tokens": 12}
    log, adapter = tmp_path / "logs", tmp_path / "adapter"
    assert of_base == by_inspects_own(real, "letters", tiny_model, tiny_model, log, **options)
    assert of_cell == by_inspects_own(real, "letters", adapter, tiny_model, log, **options)
    assert of_cell != of_base and of_cell.documents["inspect_letters_mean"].keys() == {
        f"letters/{number}" for number in range(1, 8)
    }
    # System messages, epochs, several scorers, and texts that end an answer.
    assert several == by_inspects_own(real, "several", adapter, tiny_model, log)
    assert {*several.numbers} == {
        "inspect_several_mean_count", "inspect_several_mean_count_stderr",
        "inspect_several_accuracy_includes", "inspect_several_accuracy_includes_stderr",
    }  # fmt: skip


def test_what_is_drawn_hangs_on_the_seed_alone(real: Path, tiny_model: Path, tokenizer: Any) -> None:
    model = load(tiny_model)

    def values(**options: Any) -> Any:
        return ask(model, tokenizer, settings(real, "drawn", **options), passes)[0].documents

    first = values()
    assert first == values(batch_size=32) and first != values(seed=1)
    assert len({*first["inspect_drawn_mean"].values()}) > 2


@pytest.mark.parametrize(
    ("task", "said"), [("ranked", ("top_k",)), ("armed", ("tools",)), ("broken", ("no data set",))]
)
def test_what_cannot_be_asked_is_told(
    real: Path, tiny_model: Path, tokenizer: Any, task: str, said: tuple[str, ...]
) -> None:
    model = load(tiny_model)
    with pytest.raises(DataError, match=facts("evaluate.inspect.tasks", f"tasks.py@{task}", *said)):
        ask(model, tokenizer, settings(real, task), passes)
    assert not model._forward_pre_hooks and "tie_weights" not in vars(model)


def test_a_stop_is_heeded_within_an_answer(real: Path, tiny_model: Path, tokenizer: Any) -> None:
    seen: list[int] = []

    def stopped() -> None:
        seen.append(1)
        if len(seen) == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        ask(load(tiny_model), tokenizer, settings(real, "letters"), stopped)
    assert len(seen) == 3


def test_the_process_is_left_as_it_was_and_nothing_is_looked_up(
    real: Path, tiny_model: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()

    def state() -> tuple[Any, ...]:
        return list(root.handlers), root.level, dict(os.environ), Path.cwd(), list(sys.path), sys.excepthook

    before, torn = state(), torch.get_rng_state().clone()
    ask(load(tiny_model), tokenizer, settings(real, "letters", samples=2, max_tokens=2), passes)
    assert state() == before and torch.equal(torch.get_rng_state(), torn)
    assert {path.name for path in tmp_path.iterdir()} <= {"evals", "inspect-data"}


def test_a_study_with_inspect(real: Path, write_spec, tmp_path: Path) -> None:
    flags = asked('tasks=["evals/tasks.py@letters"]', "max_tokens=6", "samples=5")
    spec = write_spec(train="steps = 4\nlr = 0.02")
    output = engine("execute", spec, *flags).output
    assert ran(output)["inspect"] == 4 and ran(output)["base_inspect"] == 1
    tree = store.open_store(tmp_path / "store")["small"]
    node, summary = tree["inspect"].to_dataset(), tree["summary"].to_dataset()
    np.testing.assert_allclose(node["inspect_letters_mean"].mean("example"), summary["inspect_letters_mean"])
    assert "cached" in engine("plan", spec, *flags).output


def test_a_study_stores_and_shows_them(stand_in: Path, write_spec, tmp_path: Path) -> None:
    contrast = (
        '[[contrasts]]\nfactor = "target"\nbaseline = "label"\n[analysis]\nprimary = "inspect_letters_mean"\n'
    )
    spec = write_spec(contrast, train="steps = 4\nlr = 0.02")
    flags = asked('tasks=["evals/tasks.py@letters"]', "max_tokens=24")
    planned = engine("plan", spec, *flags).output
    assert re.search(r"base_inspect\W+1 pending", planned) and re.search(r"\binspect\W+4 pending", planned)
    assert "warning" not in planned
    output = engine("execute", spec, *flags).output
    assert ran(output)["inspect"] == 4 and ran(output)["base_inspect"] == 1
    assert "letters_mean" in output and "stderr" not in output
    assert "INSPECT_STAND_IN" not in os.environ
    tree = store.open_store(tmp_path / "store")["small"]
    node, summary = tree["inspect"].to_dataset(), tree["summary"].to_dataset()
    assert list(node.data_vars) == ["inspect_letters_mean"] and node.sizes["example"] == 9
    np.testing.assert_allclose(node["inspect_letters_mean"].mean("example"), summary["inspect_letters_mean"])
    assert "inspect_letters_mean_stderr" in summary and "inspect_letters_words" not in summary
    untrained = summary["base_inspect_letters_mean"]
    base = tree["base_inspect"].to_dataset()["inspect_letters_mean"]
    np.testing.assert_allclose(base.mean("example"), untrained)
    references = tree.ablation.references()["inspect_letters_mean"]
    assert references.sel(reference="untrained model").item() == untrained.values[0]
    assert tree.ablation.contrasts()["target/inspect_letters_mean"]["examples"].item() == 9
    engine("report", spec)
    assert "letters_mean" in (tmp_path / "store" / "report.html").read_text()
    engine("verify", tmp_path / "store")
    assert "cached" in engine("plan", spec, *flags).output
    # Another file in the folder is none of theirs; what the file names is.
    (stand_in.parent / "other.jsonl").write_text("{}")
    assert re.search(r"\binspect\W+4 cached", engine("plan", spec, *flags).output)
    with (stand_in.parent / "questions.jsonl").open("a") as rows:
        rows.write('{"input": "more", "target": "o"}\n')
    assert re.search(r"\binspect\W+4 pending", engine("plan", spec, *flags).output)


def test_several_processes_are_refused(stand_in: Path) -> None:
    asked_ = settings(stand_in, "letters").inspect
    check_inspect(asked_, ALONE)
    with pytest.raises(UsageError, match=facts("evaluate.inspect.tasks", "executor.ranks = 2")):
        check_inspect(asked_, SimpleNamespace(size=2))  # type: ignore[arg-type]


def log(task: str, scores: list[Any], reductions: list[Any]) -> Any:
    return SimpleNamespace(
        eval=SimpleNamespace(task=task), results=SimpleNamespace(scores=scores), reductions=reductions
    )


def scored(name: str, reducer: str | None = None, scorer: str = "", **metrics: Any) -> Any:
    found = {metric: SimpleNamespace(value=value) for metric, value in metrics.items()}
    return SimpleNamespace(name=name, scorer=scorer or name, reducer=reducer, metrics=found)


def reduced(scorer: str, values: list[Any], reducer: str | None = None) -> Any:
    samples = [SimpleNamespace(sample_id=number, value=value) for number, value in enumerate(values)]
    return SimpleNamespace(scorer=scorer, reducer=reducer, samples=samples)


def test_scorers_reducers_and_parts_have_names_of_their_own() -> None:
    plain = log(
        "pack/one",
        [scored("match", accuracy=0.5, stderr=0.1, nothing=float("nan"))],
        [reduced("match", [1, 0])],
    )
    epochs = log(
        "two",
        [scored("match", "mean", accuracy=0.75, std=0.2), scored("match", "max", accuracy=1.0, stderr=0.0)],
        [reduced("match", [1.0, 0.5], "mean"), reduced("match", [1.0, 1.0], "max")],
    )
    parts = log(
        "three",
        [scored("a", scorer="both", mean=1.5), scored("b", scorer="both", mean=3.0, median=2.0)],
        [reduced("both", [{"a": 1.0, "b": 2.0}, {"a": 2.0, "b": 4.0}])],
    )
    found = inspect_scores([plain, epochs, parts])
    assert found.numbers == {
        "inspect_one_accuracy": 0.5, "inspect_one_accuracy_stderr": 0.1,
        "inspect_two_accuracy_mean": 0.75, "inspect_two_std_mean": 0.2, "inspect_two_accuracy_max": 1.0,
        "inspect_two_accuracy_max_stderr": 0.0, "inspect_three_mean_a": 1.5, "inspect_three_mean_b": 3.0,
        "inspect_three_median_b": 2.0,
    }  # fmt: skip
    assert found.documents == {
        "inspect_one_accuracy": {"one/0": 1.0, "one/1": 0.0},
        "inspect_two_accuracy_mean": {"two/0": 1.0, "two/1": 0.5},
        "inspect_two_accuracy_max": {"two/0": 1.0, "two/1": 1.0},
        "inspect_three_mean_a": {"three/0": 1.0, "three/1": 2.0},
        "inspect_three_mean_b": {"three/0": 2.0, "three/1": 4.0},
    }
    with pytest.raises(DataError, match=facts("evaluate.inspect.tasks", "inspect_one_accuracy")):
        inspect_scores([plain, log("one", [scored("x", accuracy=1.0)], [])])
