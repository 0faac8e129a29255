"""Along a training: its adapters are those of shorter trainings, kept once, and measured as any other."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from children import run, start
from commands import engine
from facts import facts
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from small_study import small_spec
from trainings import interrupted, load, many, saved_weights, train

import store
from engine.stages.training import stage as training
from engine.stages.training.files import Trained
from engine.stages.training.kept import Measured, kept_steps, measured_adapters, step_of
from specs.tables.experiment import Lora, Train
from store import Ledger
from store.report.collect import collect
from store.upkeep.verify import verify

EIGHT = "steps = 8\nlr = 0.03\nwarmup = 0.0\nschedule = 'constant'"
PROBE = "[probe]\npositions = ['prompt_end', 'completion_end']\n"
ONE = ("--only", "seed=0", "--only", "target=label+explanation")


@given(share=st.floats(0, 1, exclude_max=True), planned=st.integers(1, 10_000))
def test_a_share_is_the_first_step_that_reaches_it(share: float, planned: int) -> None:
    step = step_of(share, planned)
    assert step is not None and 0 <= step <= planned
    assert step == 0 or (step - 1) / planned < share
    assert step / planned >= share - 1e-6 / planned


def test_shares_of_round_numbers_are_exact() -> None:
    assert [step_of(share / 10, 30) for share in range(10)] == list(range(0, 30, 3))
    assert step_of(1.0, 30) is None and step_of(1, 30) == 1


def test_entries_are_told_by_how_the_training_ended() -> None:
    """Of 40 planned steps 30 were done, and the adapter of step 24 was kept."""
    trained = Trained({"kept_step": 24.0}, {"loss": np.zeros(30, np.float32)}, planned=40)
    at = [0, 0.25, 0.75, 0.9, 1.0]
    stopped = measured_adapters(at, trained, early_stopping=True)
    assert stopped == [Measured(0), Measured(10, True), Measured(30, True), Measured(24), Measured(24)]
    assert kept_steps(at, 40, early_stopping=True) == {10, 30, 36}
    whole = Trained({}, {"loss": np.zeros(40, np.float32)}, planned=40)
    assert measured_adapters([10, 40, 50], whole, early_stopping=False) == [
        Measured(10, True), Measured(40), Measured(40),
    ]  # fmt: skip
    assert kept_steps([10, 40, 50], 40, early_stopping=False) == {10}


def kept(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(folder / f"adapter-{step}.safetensors")


def assert_equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize(
    "lora", [Lora(r=2, dropout=0.1), Lora(r=2, dora=True), Lora(r=2, modules_to_save=["lm_head"])]
)
def test_a_kept_adapter_is_that_of_a_training_that_ends_there(
    tiny_model: Path, tokenizer: Any, tmp_path: Path, lora: Lora
) -> None:
    """The last one is the final adapter; a training of fewer steps at a constant rate ends in each."""
    base = load(tiny_model)
    settings = partial(Train, batch_size=2, precision="float32", lr=1e-2, schedule="constant", warmup=0.0)
    options: Any = {"lora": lora, "examples": many(6)}
    train(base, tokenizer, tmp_path / "whole", settings=settings(steps=5), keep=lambda n: {2, n}, **options)
    assert_equal(kept(tmp_path / "whole", 5), saved_weights(tmp_path / "whole"))
    train(base, tokenizer, tmp_path / "short", settings=settings(steps=2), **options)
    assert_equal(kept(tmp_path / "whole", 2), saved_weights(tmp_path / "short"))
    assert not list((tmp_path / "whole").glob("checkpoints*"))


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_stop_between_kept_steps_changes_nothing(
    tiny_model: Path, tokenizer: Any, tmp_path: Path, step: int
) -> None:
    base, settings = load(tiny_model), Train(steps=5, batch_size=2, precision="float32", lr=1e-2)
    options: Any = {"settings": settings, "lora": Lora(r=2, dropout=0.1), "keep": lambda _: {1, 3}}
    train(base, tokenizer, tmp_path / "whole", many(6), **options)
    interrupted(step, base, tokenizer, tmp_path / "stopped", many(6), **options)
    train(base, tokenizer, tmp_path / "stopped", many(6), **options)
    for number in (1, 3):
        assert_equal(kept(tmp_path / "stopped", number), kept(tmp_path / "whole", number))
    assert_equal(saved_weights(tmp_path / "stopped"), saved_weights(tmp_path / "whole"))


def node(root: Path, name: str) -> xr.Dataset:
    return store.open_store(root)[f"small/{name}"].to_dataset()


def assert_same(along: xr.Dataset, step: float, root: Path) -> None:
    """Compare, to the bit, what was measured after a step with a store's evaluation and probe."""
    for stage in ("evaluate", "probe"):
        for name, values in node(root, stage).data_vars.items():
            ours, theirs = (part.sel(target="label+explanation", seed=0) for part in (along[name], values))
            np.testing.assert_array_equal(ours.sel(step=step).values, theirs.values, err_msg=name)


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rated_file: Path
) -> Callable[..., Path]:
    """A function that runs the study with some settings, once, and gives its folder."""
    known: dict[tuple[str, ...], Path] = {}

    def of(at: str, *sets: str) -> Path:
        if (at, *sets) not in known:
            folder = known[at, *sets] = tmp_path_factory.mktemp("along")
            spec = small_spec(folder, tiny_model, rated_file, PROBE + at, train=EIGHT)
            engine("execute", spec, *ONE, *(word for each in sets for word in ("--set", each)))
        return known[at, *sets]

    return of


AT = "at = [0, 0.25, 0.5, 1.0]\n"


def test_each_step_is_measured_as_a_training_that_ends_there(whole: Callable[..., Path]) -> None:
    along = node(whole(AT) / "store", "along")
    assert along["entropy"].dims == ("cell", "step", "example", "layer", "position")
    assert along["step"].values.tolist() == [0, 0.25, 0.5, 1]
    assert along["optimizer_step"].values.tolist() == [[0, 2, 4, 8]]
    for step, steps in ((0, 0), (0.25, 2), (0.5, 4), (1, 8)):
        assert_same(along, step, whole("", f"train.steps={steps}") / "store")
    assert not np.array_equal(along["entropy"].sel(step=0.5), along["entropy"].sel(step=1))


def test_nothing_else_changes(whole: Callable[..., Path]) -> None:
    """Keys, results and the final adapter are those of a study that does not ask for it."""
    with_steps, without = (store.open_store(whole(at) / "store")["small"] for at in (AT, ""))
    assert set(with_steps.children) == {*without.children, "along"}
    for stage in ("evaluate", "probe", "train"):
        xr.testing.assert_identical(with_steps[stage].to_dataset(), without[stage].to_dataset())
    (left,), (right,) = ((whole(at) / "store" / "train").iterdir() for at in (AT, ""))
    assert left.name == right.name
    assert_equal(saved_weights(left), saved_weights(right))
    assert not list(right.glob("adapter-*")) and len(list(left.glob("adapter-*"))) == 2


def test_other_steps_take_what_was_kept(
    whole: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A finished training is done again only for adapters that it did not keep, and up to these."""
    shutil.copytree(whole(AT), tmp_path / "copy")
    spec, root = tmp_path / "copy" / "small.toml", tmp_path / "copy" / "store"
    spec.write_text(spec.read_text().replace(str(whole(AT)), str(tmp_path / "copy")))
    again: list[set[int]] = []
    keep_again = training.keep_again

    def spy(*arguments: Any) -> None:
        again.append(arguments[3])
        keep_again(*arguments)

    monkeypatch.setattr(training, "keep_again", spy)
    engine("execute", spec, *ONE, "--set", "probe.at=[0.5, 1.0]")
    assert again == []
    before = saved_weights(next((root / "train").iterdir()))
    engine("execute", spec, *ONE, "--set", "probe.at=[0, 2, 3, 6]")
    assert again == [{3, 6}]
    along = node(root, "along")
    assert along["optimizer_step"].values.tolist() == [[0, 2, 3, 6]]
    assert_same(along, 3, whole("", "train.steps=3") / "store")
    assert_same(along, 6, whole("", "train.steps=6") / "store")
    assert_equal(saved_weights(next((root / "train").iterdir())), before)
    assert not Ledger(root).running("train") and not verify(root).troubles


def test_cells_that_share_a_training_share_its_adapters(write_spec, tmp_path: Path) -> None:
    spec = write_spec(
        f"{PROBE}{AT}[factors.asked.levels]\nsame = {{}}\n"
        'other = { evaluate.prompt.template = "{response}:" }\n',
        train=EIGHT,
    )
    output = engine("execute", spec, "--only", "seed=0", "--only", "target=label").output
    assert "1 train" in output and "2 along" in output
    (home,) = (tmp_path / "store" / "train").iterdir()
    assert sorted(path.name for path in home.glob("adapter*")) == [
        "adapter", "adapter-2.safetensors", "adapter-4.safetensors",
    ]  # fmt: skip
    assert node(tmp_path / "store", "along").sizes["cell"] == 2


def test_a_training_that_stops_early_stays_at_its_final_adapter(write_spec, tmp_path: Path) -> None:
    train_table = "steps = 40\nlr = 0.1\nwarmup = 0.0\nearly_stopping = 1\nvalidate_every = 2\n"
    spec = write_spec(f"{PROBE}at = [0.1, 0.95, 1.0]\n", train=train_table)
    engine("execute", spec, *ONE)
    root = tmp_path / "store"
    along, summary = node(root, "along"), node(root, "summary")
    kept_step = int(summary["kept_step"].item())
    assert int(summary["train_steps"].item()) < 38
    assert along["optimizer_step"].values.tolist() == [[4, kept_step, kept_step]]
    assert_same(along, 1, root)
    xr.testing.assert_equal(along.sel(step=0.95, drop=True), along.sel(step=1, drop=True))


def test_a_kill_at_any_moment_ends_in_the_same(
    whole: Callable[..., Path], tiny_model: Path, rated_file: Path, tmp_path: Path
) -> None:
    undisturbed = tmp_path / "undisturbed"
    words = ("execute", small_spec(tmp_path, tiny_model, rated_file, PROBE + AT, train=EIGHT), *ONE)
    words = (*words, "--set", "train.checkpoint_every=3")
    run(undisturbed, *words, "--store", undisturbed / "store")
    expected = node(undisturbed / "store", "along").load()
    for number, (moment, among) in enumerate(
        [(2, "adapter-2"), (2, "adapter-4"), (3, "checkpoint-3"), (4, "along")]
    ):
        folder = tmp_path / str(number)
        child = start(folder, *words, "--store", folder / "store", before_event=moment, among=among)
        child.join(300)
        assert child.exitcode == -9, (among, (folder / "output").read_text())
        run(folder, *words, "--store", folder / "store")
        xr.testing.assert_identical(node(folder / "store", "along").load(), expected)
        (home,), (same,) = ((root / "store" / "train").iterdir() for root in (folder, undisturbed))
        for step in (2, 4):
            assert_equal(kept(home, step), kept(same, step))
        assert_equal(saved_weights(home), saved_weights(same))


def test_a_damaged_kept_adapter_is_told_and_kept_again(whole: Callable[..., Path], tmp_path: Path) -> None:
    shutil.copytree(whole(AT), tmp_path / "copy")
    spec, root = tmp_path / "copy" / "small.toml", tmp_path / "copy" / "store"
    spec.write_text(spec.read_text().replace(str(whole(AT)), str(tmp_path / "copy")))
    (file,) = root.glob("train/*/adapter-4.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    (trouble,) = verify(root).troubles
    assert trouble.stage == "train" and trouble.path.endswith("adapter-4.safetensors")
    engine("execute", spec, *ONE, "--set", "probe.at=[0.5]")
    assert_same(node(root, "along"), 0.5, whole("", "train.steps=4") / "store")


@pytest.mark.parametrize(
    ("at", "told"),
    [
        ("[0.1, 5]", ("probe.at", "shares", "steps", "both", "0.1", "5")),
        ("[0.5, 0.1]", ("probe.at[1]", "0.5", "0.1")),
        ("[2.0]", ("probe.at[0]", "2.0")),
        ("[-1]", ("probe.at[0]", "-1")),
        ('[0.5]\nlens = "tuned"', ("probe.lens", "tuned", "probe.at", "logit")),
    ],
)
def test_what_is_wrong_is_told(write_spec, at: str, told: tuple[str, ...]) -> None:
    result = engine("plan", write_spec(f"[probe]\nat = {at}\n"), code=2)
    assert re.search(facts(*told), result.output.replace("\n", " "))


def test_the_report_has_its_curves(whole: Callable[..., Path]) -> None:
    root = whole(AT) / "store"
    section = collect(root)["experiments"][0]["along"]
    accuracy, *others = (curve for curve in section["curves"] if curve["layer"] is None)
    along = node(root, "along")
    right = (along["prediction"] == along["gold"]).mean(["cell", "example"])
    assert accuracy["variable"] == "correct" and not others
    assert accuracy["step"] == [0, 0.25, 0.5, 1]
    np.testing.assert_allclose(accuracy["mean"], right.values, atol=1e-4)
    drawn = {
        (curve["layer"], curve["position"]) for curve in section["curves"] if curve["variable"] == "entropy"
    }
    assert len(drawn) == along.sizes["layer"] * along.sizes["position"]
    assert "along" in collect(whole("") / "store")["experiments"][0]["along"]["missing"]
