"""What a store holds is data: no code in it, no token, nothing outside of it."""

from __future__ import annotations

import pickletools
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from annotate_spec import write_spec as write_annotation
from chat_server import rated, serving
from children import assert_same, contents
from commands import engine
from facts import told
from transformers import trainer as transformers_trainer

from engine.stages.training.callbacks import Saver

# Of a training's checkpoint: torch's files, pickles in a zip file. Gone when the training is done.
PICKLES = {"optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"}
TOKEN, KEY = "hf_planted0token0nobody0may0see", "sk-planted0key0nobody0may0see"


def is_pickle(path: Path) -> bool:
    """Tell whether a file is a pickle, or a zip file with one in it."""
    if zipfile.is_zipfile(path):
        return any(name.endswith(".pkl") for name in zipfile.ZipFile(path).namelist())
    content = path.read_bytes()
    try:
        return len(list(pickletools.genops(content))) > 1  # to its end
    except (ValueError, IndexError, UnicodeDecodeError):
        return False


def pickles(root: Path) -> set[str]:
    return {path.name for path in root.rglob("*") if path.is_file() and is_pickle(path)}


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("PLANTED_KEY", KEY)


def assert_nowhere(folder: Path, *outputs: str) -> None:
    texts = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    texts |= {f"output {number}": output.encode() for number, output in enumerate(outputs)}
    for name, text in texts.items():
        for secret in (TOKEN, KEY):
            assert secret.encode() not in text, name


def test_a_store_holds_no_code_and_a_checkpoint_is_read_as_data(
    write_spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_spec(train="steps = 4\ncheckpoint_every = 1")
    only = ("--only", "target=label", "--only", "seed=0")
    root, undisturbed = tmp_path / "store", tmp_path / "undisturbed"
    engine("execute", spec, *only, "--store", undisturbed)
    assert pickles(undisturbed) == set()

    def stop_at_two(self, args, state, control, **_) -> None:  # as the first Ctrl-C would
        self.stop.requested |= state.global_step == 2
        control.should_save = control.should_training_stop = self.stop.requested

    with monkeypatch.context() as patch:
        patch.setattr(Saver, "on_step_end", stop_at_two)
        stopped = engine("execute", spec, *only, code=130)
    assert pickles(root) == PICKLES
    loads = []
    load = torch.load

    def watching(file, *arguments, **options):
        loads.append((Path(file), options["weights_only"]))
        return load(file, *arguments, **options)

    monkeypatch.setattr(transformers_trainer.torch, "load", watching)
    resumed = engine("execute", spec, *only)
    assert {path.name for path, _ in loads} == PICKLES - {"training_args.bin"}
    assert all(root in path.parents and weights_only for path, weights_only in loads)
    assert pickles(root) == set()
    assert_same(contents(root), contents(undisturbed))
    assert_nowhere(tmp_path, stopped.output, resumed.output)


def test_no_token_gets_into_answers_or_messages(tmp_path: Path) -> None:
    """Not even from a server that shows what it was sent."""

    def script(body, count):
        return rated(3) if count == 0 else rated(4)

    with serving(script) as served:
        spec = write_annotation(tmp_path, served.url, annotator='key_env = "PLANTED_KEY"')
        output = engine("annotate", spec).output
        assert served.headers[0]["Authorization"] == f"Bearer {KEY}"
    refused = engine("annotate", spec, "--set", 'annotate.output="other.jsonl"', code=1).output
    assert_nowhere(tmp_path, output, refused)


def test_levels_that_look_like_paths_stay_levels(write_spec, tmp_path: Path) -> None:
    spec = write_spec(
        '[factors.way.levels]\n"../../escaped" = { train.lr = 1e-3 }\n"/tmp/escaped" = { train.lr = 2e-3 }\n'
    )
    before = set(tmp_path.parent.iterdir())
    engine("execute", spec, "--only", "target=label", "--only", "seed=0")
    assert {path.name for path in tmp_path.iterdir()} == {"small.toml", "store"}
    assert set(tmp_path.parent.iterdir()) == before
    assert not list(tmp_path.rglob("*escaped*")) and not Path("/tmp/escaped").exists()
    assert told(engine("plan", spec, "--set", 'name="../x"', code=2).output, "name", "string")


def test_a_manifest_that_names_paths_is_refused(tmp_path: Path) -> None:
    from store import StoreError, open_store, write_manifest

    write_manifest(
        tmp_path / "store", "x", {"cells": [{"levels": {"seed": 0}, "keys": {"../..": "../../secret"}}]}
    )
    with pytest.raises(StoreError, match="no path"):
        open_store(tmp_path / "store")
    assert "no path" in engine("status", tmp_path / "store", code=1).output


def test_foreign_code_runs_only_where_a_spec_says_so_and_the_plan_shows_it(write_spec) -> None:
    assert "trust_remote_code" not in engine("plan", write_spec()).output
    spec = write_spec(
        '[factors.trusted]\npath = "model.trust_remote_code"\nvalues = [false, true]\n', name="factor"
    )
    assert told(engine("plan", spec).output, "trust_remote_code")


def test_an_execution_that_cannot_fit_on_the_disk_is_refused_with_numbers(
    write_spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, usage = write_spec(), shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    output = engine("execute", spec, code=2).output
    assert told(output, "free", "cells to run") and "--ignore-space" in output
    assert not (tmp_path / "store").exists()
    assert "Ran 1 data" in engine("execute", spec, "--max-cells", "1", "--ignore-space").output
