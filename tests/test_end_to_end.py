"""The main job on real parts: a tiny random-weight Llama, a real store, the real command."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from children import run, start
from commands import engine, ran
from facts import told

import store
from kernels import available_backends

COMMAND = [sys.executable, "-c", "from engine.cli.main import main; main()"]


def arrays(root: Path) -> dict[str, np.ndarray]:
    """Give every array of the one experiment in a store, by path."""
    tree = store.open_store(root)
    return {
        f"{node.path}/{name}": np.asarray(variable.values)
        for node in tree.subtree
        for name, variable in node.data_vars.items()
        if not name.endswith("seconds")
    }


def assert_same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert left.keys() == right.keys()
    for name, values in left.items():
        np.testing.assert_array_equal(values, right[name], err_msg=name)


def test_execute_fills_a_store_that_opens_as_labelled_data(write_spec, tmp_path: Path) -> None:
    spec = write_spec('[[contrasts]]\nfactor = "target"\nbaseline = "label"\n')
    first = engine("execute", spec)
    assert ran(first.output) == {"data": 1, "base": 1, "train": 4, "evaluate": 4, "probe": 4}
    tree = store.open_store(tmp_path / "store")
    probe = tree["small/probe"].to_dataset()
    assert dict(probe.sizes) == {
        "cell": 4, "example": 6, "layer": 4, "position": 1, "watch": 3, "top": 5,
    }  # fmt: skip
    assert probe.attrs["backend"] in available_backends()
    assert probe.sel(target="label", seed=1)["entropy"].dims == ("example", "layer", "position")
    assert np.isfinite(probe["entropy"].values).all()
    assert (probe["entropy"].values <= np.log(320) + 1e-4).all()
    final = probe["kl_final"].sel(layer=3).values
    np.testing.assert_array_equal(final, 0)
    evaluation = tree["small/evaluate"].to_dataset()
    assert set(evaluation["prediction"].values.ravel()) <= {"1", "2", "3"}
    summary = tree["small/summary"].to_dataset()
    correct = (evaluation["prediction"] == evaluation["gold"]).mean("example")
    np.testing.assert_allclose(correct.values, summary["accuracy"].values)
    assert tree["small/train"].to_dataset()["loss"].dims == ("cell", "step")
    assert tree["small"].attrs["cells_complete"] == 4
    assert json.loads(tree["small"].attrs["packages"])["torch"]

    second = engine("execute", spec)
    assert "Nothing to do" in second.output
    plan = json.loads(engine("plan", spec, "--json").output)
    assert plan["stages"]["train"] == {"cached": 4, "pending": 0, "failed": 0, "running": 0}


def test_the_last_layer_of_the_probe_is_the_model_itself(write_spec, tmp_path: Path) -> None:
    spec = write_spec()
    engine("execute", spec, "--only", "target=label", "--only", "seed=0")
    tree = store.open_store(tmp_path / "store")
    probe, evaluation = tree["small/probe"].to_dataset(), tree["small/evaluate"].to_dataset()
    watched = probe["watch_logprob"].sel(layer=3).isel(position=0).values
    np.testing.assert_allclose(watched, evaluation["label_logprob"].values, rtol=1e-4, atol=1e-5)


def test_the_group_of_every_example_is_stored(write_spec, rated_file: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in rated_file.read_text().splitlines()]
    grouped = tmp_path / "grouped.jsonl"
    stories = [row | {"story": f"story {number // 3}"} for number, row in enumerate(rows)]
    grouped.write_text("".join(json.dumps(row) + "\n" for row in stories))
    spec = write_spec('[[interventions]]\nname = "off"\nkind = "mask"\n', train="steps = 1")
    text = spec.read_text().replace(str(rated_file), str(grouped)).replace("seeds = [0, 1]", "seeds = [0]")
    spec.write_text(text.replace('explanation = "why"', 'explanation = "why", group = "story"'))
    engine("execute", spec)
    tree = store.open_store(tmp_path / "store")["small"]
    for stage in ("evaluate", "probe", "intervene"):
        node = tree[stage].to_dataset()
        story = [(int(name.partition("-")[2]) - 1) // 3 for name in node["example"].values]
        pairs = set(zip(story, node["group"].values.tolist(), strict=True))
        assert len(pairs) == len({number for number, _ in pairs}) == len({group for _, group in pairs})
        assert len(pairs) < len(story)


def test_every_way_of_scoring_is_stored(write_spec, tmp_path: Path) -> None:
    settings = (
        'evaluate.scoring=["loglikelihood", "constrained", "generation"]',
        'evaluate.spellings={ 1 = ["one"], 3 = ["three", "3/3"] }',
        'target.placement="before"',
        "evaluate.max_new_tokens=12",
    )
    flags = [flag for change in settings for flag in ("--set", change)]
    engine("execute", write_spec(), "--only", "seed=0", "--only", "target=label+explanation", *flags)
    tree = store.open_store(tmp_path / "store")
    evaluation, summary = tree["small/evaluate"].to_dataset(), tree["small/summary"].to_dataset()
    for variable, kind in (("prediction", ""), ("constrained_label", "constrained_")):
        assert set(evaluation[variable].values.ravel()) <= {"1", "2", "3"}
        correct = (evaluation[variable] == evaluation["gold"]).mean("example")
        np.testing.assert_allclose(correct.values, summary[f"{kind}accuracy"].values)
    text, explanation = evaluation["generated_text"].values, evaluation["generated_explanation"].values
    assert [
        " ".join(t.partition("\nRating: ")[0].split()) for t in text.ravel()
    ] == explanation.ravel().tolist()


def test_training_examples_are_evaluated_and_signatures_are_shown(write_spec, tmp_path: Path) -> None:
    spec = write_spec("[signatures]\ntrain_gap = -1.0\n")
    flags = ("--only", "seed=0", "--set", "train.steps=40", "--set", "train.lr=0.02")
    engine("execute", spec, *flags, "--set", "evaluate.train_examples=5")
    summary = store.open_store(tmp_path / "store")["small/summary"].to_dataset()
    assert set(summary["train_accuracy"].values.tolist()) <= {0, 0.2, 0.4, 0.6, 0.8, 1}
    assert (summary["train_accuracy"] > summary["accuracy"].min()).any()
    status = engine("status", tmp_path / "store").output
    assert told(status, "overfitting", "2 of 2 cells", "accuracy")
    assert "dimension confusion" not in status


def test_extending_a_spec_keeps_what_stands(write_spec, tmp_path: Path) -> None:
    spec = write_spec()
    engine("execute", spec, "--only", "target=label")
    adapters = sorted((tmp_path / "store" / "train").iterdir())
    changed = {folder: folder.stat().st_mtime_ns for folder in adapters}
    result = engine("execute", spec)
    assert "Ran 2 train, 2 evaluate, 2 probe" in result.output
    assert {folder: folder.stat().st_mtime_ns for folder in adapters} == changed


def test_training_knows_nothing_of_what_is_tested(write_spec, tmp_path: Path) -> None:
    """One training serves every test set, so the test set's dimension must not reach its prompts."""
    prompt = ("--set", 'prompt.template="{dimension} of {response}:"', "--set", "data.dimension=tone")
    cell = ("--only", "seed=0", "--only", "target=label")
    for name, dimension in (("here", "tone"), ("there", "style")):
        changes = (*prompt, "--set", f"evaluate.data.dimension={dimension}")
        engine("execute", write_spec(), *cell, *changes, "--store", tmp_path / name)
    here, there = (sorted((tmp_path / name).rglob("adapter_model.safetensors")) for name in ("here", "there"))
    assert [file.parts[-3] for file in here] == [file.parts[-3] for file in there]  # one key
    assert [file.read_bytes() for file in here] == [file.read_bytes() for file in there]


def test_one_training_is_tested_with_many_wordings(write_spec, tmp_path: Path) -> None:
    """Each wording measures what a spec with this prompt for both would on the same adapter."""
    spec = write_spec(
        "[factors.wording.levels]\ntrained = {}\n"
        'short = { evaluate.prompt = { template = "{response}", system = "" } }\n'
    )
    only = ("--only", "seed=0", "--only", "target=label")
    assert "Ran 1 data, 2 base, 1 train, 2 evaluate, 2 probe" in engine("execute", spec, *only).output
    tree = store.open_store(tmp_path / "store")["small"]
    for node, name in (("evaluate", "label_logprob"), ("probe", "entropy")):
        values = tree[node].to_dataset()[name]
        trained, short = (values.sel(wording=own).values for own in ("trained", "short"))
        assert trained.shape == short.shape and not np.isclose(trained, short).all()
    lengths = engine("data", spec).output
    assert "wording" in lengths and "short" in lengths
    refused = engine("plan", spec, "--set", 'evaluate.prompt.template="{reply}"', code=2).output
    assert "evaluate.prompt.template" in refused and "reply" in refused


def test_a_failed_cell_is_recorded_and_the_others_go_on(write_spec, tmp_path: Path) -> None:
    spec = write_spec(
        '[factors.modules.levels]\nbad = { lora.target_modules = ["no_such_module"] }\n'
        'good = { lora.target_modules = ["q_proj"] }\n'
    )
    only = ("--only", "seed=0")
    stopped = engine("execute", spec, *only, "--fail-fast", code=1)
    assert "Ran 1 data, 1 base;" in stopped.output and "no_such_module" in stopped.output
    assert "Ran 2 train, 2 evaluate, 2 probe" in engine("execute", spec, *only, code=1).output
    assert store.open_store(tmp_path / "store")["small"].attrs["cells_complete"] == 2
    status = engine("status", spec, "--traceback").output
    assert "Traceback" in status and "no_such_module" in status and "modules=bad" in status
    assert "probe backend: " in status
    again = engine("execute", spec, *only, code=1)
    assert told(again.output, "Nothing to do") and told(again.output, "2 cells", "--retry-failed")
    plan = json.loads(engine("plan", spec, "--json").output)
    assert plan["stages"]["train"] == {"cached": 2, "pending": 4, "failed": 2, "running": 0}
    retried = engine("execute", spec, *only, "--retry-failed", code=1)
    assert retried.output.count("lora.target_modules: found ['no_such_module']") >= 2


def test_a_probe_that_cannot_run_is_known_before_the_training(write_spec) -> None:
    output = engine("execute", write_spec(), "--max-cells", 1, "--set", "probe.watch=['']", code=1).output
    failed = "probe  UsageError: probe.watch: found '', which has no token"
    assert output.index(failed) < output.index(": train  loss")
    assert ran(output) == {"data": 1, "base": 1, "train": 1, "evaluate": 1}


def test_a_probe_backend_that_cannot_serve_here_is_refused_before_anything_runs(write_spec) -> None:
    output = engine("execute", write_spec(), "--set", "probe.backend='triton'", code=2).output
    assert told(output, "probe.backend", '"triton"', "CUDA or ROCm")
    assert "Ran " not in output


def test_the_same_cell_run_twice_gives_the_same_bits(write_spec, tmp_path: Path) -> None:
    """Once in this process, with all that it has run before, and once in a fresh one."""
    spec = write_spec(train="steps = 3")
    only = ("execute", spec, "--only", "seed=1", "--store")
    engine(*only, tmp_path / "here")
    subprocess.run([*COMMAND, *map(str, only), str(tmp_path / "there")], check=True, capture_output=True)
    assert_same(arrays(tmp_path / "here"), arrays(tmp_path / "there"))


@pytest.mark.parametrize(
    ("how", "dropout", "checkpoints"),
    [
        (signal.SIGKILL, 0.0, "checkpoint_every = 5"),
        (signal.SIGKILL, 0.3, "checkpoint_minutes = 1e-6"),
        (signal.SIGINT, 0.3, "checkpoint_every = 5"),
    ],
)
def test_a_stop_in_the_middle_of_training_changes_nothing(
    write_spec, tmp_path: Path, how: signal.Signals, dropout: float, checkpoints: str
) -> None:
    spec = write_spec(
        f"[factors.dropout]\npath = 'lora.dropout'\nvalues = [{dropout}]\n",
        train=f"steps = 20\n{checkpoints}",
    )
    arguments = ("execute", spec, "--only", "seed=0", "--only", "target=label")
    run(tmp_path, *arguments, "--store", tmp_path / "undisturbed")
    train = tmp_path / "store" / "train"
    stopped = start(tmp_path, *arguments, before_event=1, among="/checkpoint-10/trainer_state.json", how=how)
    stopped.join(300)
    if how is signal.SIGINT:
        assert stopped.exitcode == 130
        assert told((tmp_path / "output").read_text(), "Stopped", "safe")
    else:
        assert stopped.exitcode == -how
    assert not list(train.glob("*/adapter"))
    assert store.open_store(tmp_path / "store")["small"].attrs["cells_complete"] == 0
    steps = {int(path.name.split("-")[1]) for path in train.glob("*/checkpoints/*")}
    assert steps and max(steps) < 20
    assert "Ran 1 train, 1 evaluate, 1 probe" in run(tmp_path, *arguments)
    assert_same(arrays(tmp_path / "undisturbed"), arrays(tmp_path / "store"))
