"""The intervene stage in a study: after the trainings it takes from, in one store, once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import engine
from facts import told

import store
from store.report.collect import collect

MORE = """
[probe]
examples = 4
batch_size = 2

[[interventions]]
name = "off"
kind = "mask"

[[interventions]]
name = "to the other"
kind = "graft"
cells = { target = "label" }
donor = { target = "label+explanation" }
sweep = "below"

[[interventions]]
name = "and back"
kind = "patch"
cells = { target = "label+explanation" }
donor = { target = "label" }
positions = ["prompt_end"]

[[interventions]]
name = "heads"
kind = "heads"
layers = [1]
ablation = "mean"
"""


WORKERS = max(2, os.cpu_count() or 1)  # so that each has one thread


def node_of(root: Path) -> dict[str, Any]:
    tree = store.open_store(root)["small/intervene"]
    nodes = [tree] if "cell" in tree.dims else list(tree.children.values())
    return {node["target"].values[0]: node.to_dataset() for node in nodes}


def test_cells_that_take_from_each_other_end_whole(write_spec: Any, tmp_path: Path) -> None:
    spec = write_spec(MORE)
    engine("execute", spec)
    found = node_of(tmp_path / "store")
    label, both = found["label"], found["label+explanation"]
    assert label["entropy"].dims == ("cell", "example", "intervention", "layer")
    assert label["entropy"].shape == (2, 4, 1 + 2 + 3 + 3 + 4, 4)
    assert list(label["intervention"].values[:6]) == [
        "none", "all of base", "all of target=label+explanation", "off, layer 1", "off, layer 2",
        "off, layer 3",
    ]  # fmt: skip
    assert not np.isnan(both["label_logprob"]).any()
    # The two cells' models, read off each other's rows: labels stand after the same prompts.
    whole = label["label_logprob"].sel(intervention="to the other, layers 1-3").values
    np.testing.assert_allclose(whole, both["label_logprob"].sel(intervention="none").values, atol=1e-5)
    tree = store.open_store(tmp_path / "store")
    own = tree["small/evaluate"].to_dataset().isel(example=slice(4))["label_logprob"]
    for target, dataset in found.items():
        expected = own.sel(target=target).values
        np.testing.assert_allclose(dataset["label_logprob"].sel(intervention="none"), expected, atol=1e-5)
    probed = tree["small/probe"].to_dataset()["entropy"].sel(position="prompt_end", target="label")
    np.testing.assert_allclose(label["entropy"].sel(intervention="none"), probed, atol=1e-5)
    (reported,) = collect(tmp_path / "store")["experiments"]
    entries = {own["name"]: own for own in reported["interventions"]["entries"]}
    assert list(entries) == ["off", "to the other", "heads", "and back"]
    (other,) = entries["to the other"]["conditions"]
    assert (other["axis"], other["place"]) == ("changed up to layer", [1, 2, 3])
    assert other["source"] == "target=label+explanation"
    assert [len(own["conditions"]) for own in entries.values()] == [2, 1, 2, 1]
    assert "Nothing to do" in engine("execute", spec).output


def test_changing_the_interventions_trains_nothing(write_spec: Any) -> None:
    spec = write_spec(MORE)
    assert "4 train" in engine("execute", spec).output
    spec.write_text(spec.read_text().replace('ablation = "mean"', 'heads = "all"'))
    assert "Ran 4 intervene" in engine("execute", spec).output


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """Compute here with one thread, as workers do; sums over several differ in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("options", [("--no-wait",), ("--workers", WORKERS)])
@pytest.mark.usefixtures("_one_thread")
def test_all_ways_of_running_come_to_the_same(write_spec: Any, tmp_path: Path, options: Any) -> None:
    spec = write_spec(MORE)
    engine("execute", spec, *options)
    engine("execute", spec, "--store", tmp_path / "other")
    for target, dataset in node_of(tmp_path / "store").items():
        other = node_of(tmp_path / "other")[target]
        assert dataset.equals(other)


def test_a_donor_left_out_is_named(write_spec: Any) -> None:
    spec = write_spec(MORE)
    ended = engine("execute", spec, "--only", "target=label", code=2)
    assert told(ended.output, '"to the other"', "trained")
    engine("execute", spec)
    spec.write_text(spec.read_text().replace("layers = [1]", "layers = [2]"))
    engine("execute", spec, "--only", "target=label")  # now it is trained


def test_a_damaged_donor_is_trained_again(write_spec: Any, tmp_path: Path) -> None:
    spec, only = write_spec(MORE), ("--only", "seed=0")
    engine("execute", spec, *only)
    before = node_of(tmp_path / "store")["label"]
    donor = max((tmp_path / "store").glob("train/*/adapter/*.safetensors"))
    content = donor.read_bytes()
    donor.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    spec.write_text(spec.read_text().replace("layers = [1]", "layers = [2]"))
    ended = engine("execute", spec, *only, code=1)
    assert told(ended.output, str(donor.relative_to(tmp_path / "store")), "changed")
    assert "2 train" not in engine("execute", spec, *only, "--retry-failed").output
    assert donor.read_bytes() == content
    after = node_of(tmp_path / "store")["label"].sel(intervention=before["intervention"][:9])
    assert after.equals(before.isel(intervention=slice(9)))


def test_a_layer_that_the_model_lacks_is_known_before_anything_runs(write_spec: Any) -> None:
    spec = write_spec(MORE.replace("layers = [1]", "layers = [9]"))
    ended = engine("execute", spec, code=2)
    assert told(ended.output, "interventions[", "].layers: ", "9", "1 to 3", "-3 to -1")
    assert str(spec) in ended.output and "Ran" not in ended.output
