"""The engine from Python does what its commands do, and gives the model of any cell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import engine as command
from facts import facts
from safetensors.torch import load_file
from small_study import small_spec

import engine
from engine.errors import UsageError
from store import StoreError, open_store


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rated_file: Path
) -> tuple[Path, Path]:
    """A spec, and the store that Python has run half of it into."""
    folder = tmp_path_factory.mktemp("api")
    spec, root = small_spec(folder, tiny_model, rated_file), folder / "store"
    outcome = engine.execute(spec, store=root, only={"target": "label"})
    assert not outcome.failed
    assert [stage for _, stage, _ in outcome.ran].count("train") == 2
    return spec, root


def test_python_runs_a_study_and_says_how_far_it_has_come(finished) -> None:
    spec, root = finished
    planned = engine.plan(spec, store=root)
    assert isinstance(planned, engine.Plan) and len(planned.cells) == 4
    found = engine.status(root)
    assert [cell.done for cell in found] == [True, True, False, False]
    assert found[0].levels == {"target": "label", "seed": 0} and found[2].stages["train"] == "pending"
    assert open_store(root)["small"].attrs["cells_complete"] == 2
    assert engine.execute(planned, only={"target": ["label"]}).ran == []


def test_what_the_command_runs_is_what_python_runs(finished, tmp_path: Path) -> None:
    spec, root = finished
    command("execute", spec, "--store", tmp_path, "--only", "target=label")
    here, there = (open_store(place)["small/probe"].to_dataset().load() for place in (root, tmp_path))
    assert here.identical(there)


def test_the_model_of_a_cell_is_one_line(finished, tiny_model: Path) -> None:
    _, root = finished
    model, tokenizer = engine.load_adapter(root, {"seed": 1})
    (folder,) = (path for path in root.glob("train/*/adapter") if holds(model, path))
    assert tokenizer.is_fast and not model.training
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode(), model.disable_adapter():
        base = model(input_ids=ids).logits
    with torch.inference_mode():
        assert not torch.equal(model(input_ids=ids).logits, base)
    moved = folder.parents[2] / "moved"
    moved.symlink_to(tiny_model)
    again, _ = engine.load_adapter(root, "target=label, seed=1", model=str(moved))
    with torch.inference_mode():
        assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)


def holds(model, folder: Path) -> bool:
    """Tell whether a model has the adapter of this folder."""
    own = {name.replace(".default", ""): value for name, value in model.state_dict().items()}
    return all(
        torch.equal(own[name], value)
        for name, value in load_file(folder / "adapter_model.safetensors").items()
    )


@pytest.mark.parametrize(
    ("cell", "error", "said"),
    [
        (
            {"target": "label"},
            UsageError,
            r"target=label.*2.*one.*target=label",
        ),
        ({"tarket": "label"}, UsageError, r"'tarket'.*target, seed"),
        ({"target": "lable", "seed": 0}, UsageError, "target=lable.*label, label.explanation.*'label'"),
        ({"target": "label", "seed": 9}, UsageError, "seed=9.*expected one of 0, 1"),
        ("nope", UsageError, "nope.*FACTOR=LEVEL.*target=label"),
        ("target=label", UsageError, "target=label.*2.*one"),
        ("target=label,seed=0,1", UsageError, "target=label, seed=0,1.*2.*one"),
        ({}, UsageError, "expected the levels of one of 2 finished trainings.*target=label, seed=0"),
        (3, TypeError, "cell.*target"),
        ({"target": "label+explanation", "seed": 0}, StoreError, "is pending"),
    ],
)
def test_what_names_no_single_training_is_told(finished, cell, error, said: str) -> None:
    with pytest.raises(error, match=said.replace("+", r"\+")):
        engine.load_adapter(finished[1], cell)


def test_unknown_levels_and_experiments_are_told(finished) -> None:
    spec, root = finished
    with pytest.raises(UsageError, match=facts('"lable"', "label")):
        engine.execute(spec, store=root, only={"target": "lable"})
    with pytest.raises(StoreError, match="no experiment"):
        engine.status(root, "other")


def test_an_adapter_is_loaded_by_its_spec_or_plan_as_well(finished) -> None:
    spec, root = finished
    cell = "target=label, seed=0"
    expected = engine.load_adapter(root, cell).model.state_dict()
    planned = engine.plan(spec, store=root)
    own = [f"store='{root}'"]
    named = spec.with_name("named.toml")
    named.write_text(f"extends = '{spec.name}'\nstore = '{root}'\n")
    for asked in (planned, engine.plan(spec, own), named, str(named)):
        loaded = engine.load_adapter(asked, cell).model.state_dict()
        assert loaded.keys() == expected.keys()
        assert all(loaded[name].equal(tensor) for name, tensor in expected.items())


def test_what_is_no_store_is_told_with_what_was_expected(finished, tmp_path: Path) -> None:
    _, root = finished
    missing = root.with_name(f"{root.name}x")
    empty = tmp_path / "empty"
    empty.mkdir()
    for call in (lambda at: engine.load_adapter(at, "rank=4,seed=0"), engine.status):
        with pytest.raises(StoreError, match=facts(str(missing), "no spec or store", root.name)):
            call(missing)
        with pytest.raises(StoreError, match=facts(str(empty), "not a store")):
            call(empty)
        with pytest.raises(TypeError, match=facts("expected", "store", "spec", "found a int")):
            call(3)


def test_texts_serve_where_a_list_of_one_is_meant(finished) -> None:
    spec, root = finished
    planned = engine.plan(spec, f"store='{root}'")  # one override
    assert planned.root == engine.plan(spec, store=root).root
    assert engine.execute(planned, only="target=label").ran == []
    assert engine.execute(planned, only=["target=label", "seed=0"]).ran == []
    for asked in (planned, root, str(root)):
        assert [cell.done for cell in engine.status(asked)] == [True, True, False, False]
    assert len(engine.status(spec)) == 4


@pytest.mark.parametrize(
    "call",
    [
        lambda spec: engine.plan(3),
        lambda spec: engine.execute(spec, only=3),
        lambda spec: engine.execute(spec, only=[3]),
        lambda spec: engine.status(None),
    ],
)
def test_what_is_of_no_use_is_a_type_error_in_one_sentence(finished, call) -> None:
    with pytest.raises(TypeError, match=facts("expected", "found")) as raised:
        call(finished[0])
    assert "\n" not in str(raised.value)


def test_the_package_names_what_it_offers_without_importing_torch() -> None:
    code = "import sys, engine; print(engine.__version__, dir(engine)); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "load_adapter" in done.stdout, done.stderr
    done = subprocess.run([sys.executable, "-m", "engine", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and engine.__version__ in done.stdout
