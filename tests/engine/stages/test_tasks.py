"""Tasks of lm-evaluation-harness: its own numbers of the trained model, stored once for each training."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import harness
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from commands import engine, ran
from facts import facts
from trainings import load, train

import store
from engine.cli.compare import compare_stores
from engine.errors import DataError
from engine.models.base_model import as_it_was
from engine.stages import tasks
from engine.stages.harness_scores import harness_scores
from engine.stages.tasks import ask
from engine.stages.training.files import load_adapter
from specs.tables.evaluate import Evaluate
from specs.tables.experiment import Lora
from store import StoreError
from store.analysis import change, means
from store.backend.locate import place_of

ONE = ("--only", "seed=0", "--only", "target=label")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    tasks._manager.cache_clear()
    harness.stand_in(tmp_path / "packages", monkeypatch)
    yield
    tasks._manager.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"]:
        del sys.modules[name]


def asked(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("--set", f"evaluate.{setting}")]


def passes() -> None:
    """Do nothing before a pass."""


@pytest.mark.parametrize("whole", [[], ["lm_head"]])
def test_numbers_are_those_of_the_harness(
    tiny_model: Path, tokenizer: Any, tmp_path: Path, whole: list[str]
) -> None:
    """Asked directly, of the same model with its adapter and of the one without."""
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    folder = harness.write_tasks(tmp_path / "tasks")
    settings = Evaluate(tasks=["choices", "written"], task_examples=9, task_folder=str(folder), batch_size=4)
    manager = TaskManager(include_path=str(folder), include_defaults=False)

    def direct(model: Any) -> dict[str, Any]:
        options = {"tasks": settings.tasks, "limit": 9, "task_manager": manager, "bootstrap_iters": 1000}
        lm = HFLM(model, tokenizer=deepcopy(tokenizer), batch_size=1)
        return lm_eval.simple_evaluate(lm, **options)

    base = load(tiny_model)
    train(base, tokenizer, tmp_path, lora=Lora(r=2, modules_to_save=whole))
    seen = []
    scores, expected = [], [direct(base)]
    scores.append(ask(base, tokenizer, settings, passes)[0])
    with as_it_was(base):
        model = load_adapter(base, place_of(tmp_path))
        score, work = ask(model, tokenizer, settings, lambda: seen.append(torch.is_grad_enabled()))
        scores.append(score)
        expected.append(direct(model))
    assert len(seen) == work.passes > 0 and not any(seen) and work.tokens > work.passes
    assert scores[0] != scores[1]
    for score, direct_results in zip(scores, expected, strict=True):
        summary, results = score.numbers, direct_results["results"]
        assert set(score.documents) == {"task_choices_acc", "task_choices_acc_norm"}
        for name in ("acc", "acc_norm"):
            samples = direct_results["samples"]["choices"]
            known = {f"choices/{sample['doc_id']}": sample[name] for sample in samples}
            assert score.documents[f"task_choices_{name}"] == known and len(known) == 9
        assert {*summary} == {
            "task_choices_acc", "task_choices_acc_stderr", "task_choices_acc_norm",
            "task_choices_acc_norm_stderr", "task_written_word_perplexity", "task_written_bits_per_byte",
        }  # fmt: skip
        for name in ("acc", "acc_norm"):
            assert summary[f"task_choices_{name}"] == results["choices"][f"{name},none"]
            assert summary[f"task_choices_{name}_stderr"] == results["choices"][f"{name}_stderr,none"]
        for name in ("word_perplexity", "bits_per_byte"):
            assert summary[f"task_written_{name}"] == pytest.approx(results["written"][f"{name},none"], 1e-5)


def test_a_study_with_the_harness(write_spec, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    harness.write_tasks(tmp_path / "tasks")
    flags = asked('tasks=["choices"]', "task_folder=tasks", "task_examples=8", "task_shots=0")
    result = engine("execute", write_spec(train="steps = 4\nlr = 0.02"), *flags)
    assert ran(result.output)["tasks"] == 4 and ran(result.output)["base_tasks"] == 1
    assert "it/s" not in result.output and "choices_acc" in result.output
    summary = store.open_store(tmp_path / "store")["small/summary"].to_dataset()
    values = summary["task_choices_acc"]
    assert np.allclose(values * 8, (values * 8).round()) and ((values >= 0) & (values <= 1)).all()
    assert "cached" in engine("plan", tmp_path / "small.toml", *flags).output  # its files made no new key


def test_a_study_stores_and_shows_them(write_spec, tmp_path: Path, stand_in: None) -> None:
    spec, flags = write_spec(train="steps = 4\nlr = 0.02"), asked('tasks=["hellaswag"]', "task_examples=5")
    planned = engine("plan", spec, *flags).output
    assert re.search(r"base_tasks\W+1 pending", planned) and re.search(r"\btasks\W+4 pending", planned)
    output = engine("execute", spec, *flags).output
    assert ran(output)["tasks"] == 4 and ran(output)["base_tasks"] == 1
    assert "hellaswag_acc" in output and "stderr" not in output
    tree = store.open_store(tmp_path / "store")["small"]
    summary = tree["summary"].to_dataset()
    value, error = summary["task_hellaswag_acc"], summary["task_hellaswag_acc_stderr"]
    np.testing.assert_allclose(error, value / 10)
    untrained = summary["base_task_hellaswag_acc"]
    assert len({*untrained.values}) == 1 and (value != untrained).all()
    references = tree.ablation.references()["task_hellaswag_acc"]
    assert references.sel(reference="untrained model").item() == untrained.values[0]
    means = tree.ablation.means("task_hellaswag_acc", "target", stage="summary")
    assert np.isfinite(means["low"]).all()
    engine("report", spec)
    assert "hellaswag_acc" in (tmp_path / "store" / "report.html").read_text()
    engine("verify", tmp_path / "store")


def test_a_training_is_the_same_with_and_without(write_spec, tmp_path: Path, stand_in: None) -> None:
    spec = write_spec(train="steps = 3")
    losses = []
    for flags in ([], asked('tasks=["hellaswag"]')):
        where = tmp_path / f"store{len(losses)}"
        engine("execute", spec, *ONE, *flags, "--store", where)
        summary = store.open_store(where)["small/summary"].to_dataset()
        losses.append((summary["train_loss"].item(), summary["accuracy"].item()))
    assert losses[0] == losses[1]


def test_cells_that_share_a_training_share_it(write_spec, stand_in: None) -> None:
    factor = '[factors.asked.levels]\nsame = {}\nother = { evaluate.prompt.template = "{response}:" }\n'
    output = engine(
        "execute", write_spec(factor, train="steps = 1"), *asked('tasks=["hellaswag"]'), *ONE
    ).output
    assert ran(output)["tasks"] == ran(output)["base_tasks"] == 1 and ran(output)["evaluate"] == 2
    flags = asked('tasks=["hellaswag"]', "base_model=false", "task_examples=2")
    assert (
        ran(engine("execute", write_spec(factor, train="steps = 1"), *flags, *ONE).output)["base_tasks"] == 0
    )


def test_nothing_is_left_changed(tiny_model: Path, tokenizer: Any, stand_in: None) -> None:
    """Neither the tokenizer, nor what random numbers come next, nor weights that are tied no more."""
    model = load(tiny_model)
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    seen: list[int] = []
    model.tie = model.tie_weights
    ask(model, tokenizer, Evaluate(tasks=["hellaswag"]), lambda: seen.append(1))
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    assert tokenizer.pad_token is None and seen == [1]
    assert model.tie_weights == model.tie and not model._forward_pre_hooks


def test_groups_and_filters_have_names_of_their_own() -> None:
    results = {
        "results": {
            "group": {"acc,none": 0.5, "acc_stderr,none": 0.1, "alias": "group"},
            "of-it": {"acc,none": 0.4},
            "a/b": {
                "match,strict-match": np.float32(0.25),
                "match_stderr,strict-match": "N/A",
                "n,none": True,
            },
            "tag": {" ": " "},
            "of_tag": {"acc,none": float("nan"), "em,none": 1},
        },
        "group_subtasks": {"group": ["of-it"], "tag": ["of_tag"], "of-it": []},
    }
    known = {
        "task_group_acc": 0.5,
        "task_group_acc_stderr": 0.1,
        "task_a_b_match_strict_match": 0.25,
        "task_a_b_n": 1.0,
        "task_of_tag_em": 1.0,
    }
    assert harness_scores(results, ["group", "a/b", "tag"]).numbers == known
    asked = ["group", "of-it", "a/b", "tag"]
    assert harness_scores(results, asked).numbers == known | {"task_of_it_acc": 0.4}
    with pytest.raises(DataError, match="task_a_b_acc"):
        harness_scores({"results": {"a/b": {"acc,none": 1.0}, "a-b": {"acc,none": 0.0}}}, ["a/b", "a-b"])


def sample(number: int, metric: str, value: Any, filtered: str = "none") -> dict[str, Any]:
    return {"doc_id": number, "filter": filtered, "metrics": [metric], metric: value}


def test_documents_are_kept_of_numbers_that_are_their_means() -> None:
    """Of groups whose tasks count by their size, too; of no number that is made of them otherwise."""
    first = [
        sample(0, "acc", 1.0),
        sample(1, "acc", 0),
        sample(0, "em", 1, "strict"),
        sample(1, "em", 1, "strict"),
    ]
    second = [sample(0, "acc", np.float32(1)), sample(1, "acc", True), sample(2, "acc", float("nan"))]
    second += [sample(0, "word", (3.0, 2)), sample(0, "exp", -1.0), sample(1, "exp", -3.0)]
    results = {
        "results": {
            "group": {"acc,none": 0.75},
            "macro": {"acc,none": 0.7},
            "a": {"acc,none": 0.5, "em,strict": 1.0, "acc_stderr,none": 0.5},
            "b": {"acc,none": 1.0, "word,none": 3.0, "exp,none": np.exp(2)},
        },
        "group_subtasks": {"group": ["a", "b"], "macro": ["a", "b"]},
        "samples": {"a": first, "b": second},
    }
    known = harness_scores(results, ["group", "macro", "a", "b"]).documents
    assert known.keys() == {"task_group_acc", "task_a_acc", "task_a_em_strict", "task_b_acc"}
    assert known["task_a_acc"] == {"a/0": 1.0, "a/1": 0.0}
    assert known["task_group_acc"].keys() == {"a/0", "a/1", "b/0", "b/1", "b/2"}


def test_contrasts_of_tasks_are_over_documents_and_seeds(write_spec, tmp_path: Path, stand_in: None) -> None:
    """As of any outcome: paired by document, each number on the documents that are its own."""
    contrast = (
        '[[contrasts]]\nfactor = "target"\nbaseline = "label"\n[analysis]\nprimary = "task_hellaswag_acc"\n'
    )
    spec = write_spec(contrast, train="steps = 4\nlr = 0.02")
    flags = asked('tasks=["group","hellaswag","inside"]', "task_examples=5")
    output = engine("execute", spec, *flags).output
    assert "warning" not in output
    tree = store.open_store(tmp_path / "store")["small"]
    node, summary = tree["tasks"].to_dataset(), tree["summary"].to_dataset()
    assert set(node.data_vars) == {"task_hellaswag_acc", "task_inside_f1_strict_match", "task_inside_acc"}
    assert set(tree["base_tasks"].to_dataset().data_vars) == set(node.data_vars)
    assert node["example"].values.tolist() == [
        *(f"hellaswag/{number}" for number in range(5)), *(f"inside/{number}" for number in range(4))
    ]  # fmt: skip
    for name in node.data_vars:
        np.testing.assert_allclose(node[name].mean("example"), summary[name], rtol=1e-6)
    assert node["task_hellaswag_acc"].notnull().sum("example").values.tolist() == [5] * 4
    changed = tree.ablation.change("task_hellaswag_acc", "target", "label")
    values = node["task_hellaswag_acc"].sel(example=[f"hellaswag/{number}" for number in range(5)])
    by = {level: values.values[node["target"].values == level] for level in ("label", "label+explanation")}
    known = {"task_hellaswag_acc": (("cell", "example"), np.concatenate([*by.values()]))}
    index = pd.MultiIndex.from_product([by, [0, 1]], names=["target", "seed"])
    alone = xr.Dataset(known).assign_coords(xr.Coordinates.from_pandas_multiindex(index, "cell"))
    expected = change(alone.rename(task_hellaswag_acc="entropy"), "entropy", "target", "label")
    for name in ("difference", "low", "high", "p_value", "examples", "missing"):
        np.testing.assert_allclose(changed[name], expected[name], rtol=1e-5)
    assert changed["examples"].item() == 5 and changed["missing"].item() == 0
    declared = tree.ablation.contrasts()["target/task_hellaswag_acc"]
    np.testing.assert_allclose(declared["p_value"], changed["p_value"])
    assert "task_hellaswag_acc" in engine("results", spec).output
    for level in ("task_inside_acc", "task_inside_f1_strict_match"):  # 0 and 1 alone: an accuracy
        means = tree.ablation.means(level, "target")
        assert "0.05" not in means.attrs["method"] and ((means["low"] > 0) & (means["high"] < 1)).all()
    with pytest.raises(StoreError, match=facts("task_group_acc", 'stage="summary"')):
        tree.ablation.change("task_group_acc", "target", "label")


def test_cells_asked_unlike_tasks_compare_in_those_that_they_share(
    write_spec, tmp_path: Path, stand_in: None
) -> None:
    factor = (
        '[factors.asked.levels]\nboth = { evaluate.tasks = ["hellaswag", "arc"] }\n'
        'one = { evaluate.tasks = ["hellaswag"] }\n'
    )
    engine("execute", write_spec(factor, train="steps = 2"), "--only", "target=label")
    tree = store.open_store(tmp_path / "store")["small"]
    assert len(tree["tasks"].children) == 2
    changed = tree.ablation.change("task_hellaswag_acc", "asked", "both")
    assert changed["difference"].item() == 0 and changed["examples"].item() == 8
    assert tree.ablation.means("task_arc_acc")["examples"].values.tolist() == [8]


def test_stores_are_compared_by_document(write_spec, tmp_path: Path, stand_in: None) -> None:
    for name, rate in (("a", "1e-3"), ("b", "0.02")):
        spec = write_spec(train=f"steps = 4\nlr = {rate}")
        engine("execute", spec, *asked('tasks=["hellaswag"]'), "--store", tmp_path / name)
    (facts_,) = compare_stores(place_of(tmp_path / "a"), place_of(tmp_path / "b"))
    row = next(row for row in facts_.facts(cells=False)["numbers"] if row["number"] == "task_hellaswag_acc")
    assert row["low"] < row["difference"] < row["high"]


def test_shares_of_documents_have_the_intervals_of_accuracies() -> None:
    rng = np.random.default_rng(1)
    right = (rng.random((2, 3, 40)) < 0.9).astype(float)
    index = pd.MultiIndex.from_product([["a", "b"], range(3)], names=["target", "seed"])
    columns = {
        name: (("cell", "example"), right.reshape(6, 40)) for name in ("task_x_acc", "generated_correct")
    }
    data = xr.Dataset(columns).assign_coords(xr.Coordinates.from_pandas_multiindex(index, "cell"))
    for function in (lambda name: change(data, name, "target"), lambda name: means(data, name, "target")):
        known, expected = function("task_x_acc"), function("generated_correct")
        for name in ("low", "high"):
            np.testing.assert_array_equal(known[name], expected[name])


def test_without_the_harness_a_plan_says_what_to_install(write_spec, monkeypatch) -> None:
    from engine.planning import harness as planned

    monkeypatch.setattr(planned, "PACKAGE", "no-such-package")
    result = engine("plan", write_spec(), *asked('tasks=["hellaswag"]'), code=2)
    told = facts("evaluate.tasks", "no-such-package", "pip install 'ablation-engine[harness]'")
    assert re.search(told, " ".join(result.output.split())), result.output


def test_a_missing_folder_is_told_by_the_plan(write_spec, tmp_path: Path, stand_in: None) -> None:
    (tmp_path / "tasks").mkdir()
    flags = asked('tasks=["hellaswag"]', "task_folder=./taks")
    output = engine("plan", write_spec(), *flags, code=2).output
    assert re.search(facts("evaluate.task_folder", "taks", "tasks"), " ".join(output.split())), output


@pytest.mark.parametrize(
    ("name", "told"), [("helaswag", ("helaswag", "hellaswag")), ("broken", ("broken", "no data set"))]
)
def test_what_cannot_be_asked_is_told(
    write_spec, tmp_path: Path, stand_in: None, name: str, told: tuple[str, ...]
) -> None:
    result = engine("execute", write_spec(), *ONE, *asked(f'tasks=["{name}"]'), code=1)
    assert re.search(facts("evaluate.tasks", *told), " ".join(result.output.split())), result.output
    assert "Traceback" not in result.output
