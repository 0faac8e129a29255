"""Evaluation and probe on one pass of the model: fewer passes, and the same results to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faults
import numpy as np
import pytest
import torch
from children import assert_same, contents
from commands import engine
from small_study import small_spec, writer
from transformers import AutoModelForCausalLM

import store
from engine.errors import EngineError
from engine.models import windows
from engine.models.lens import Lens, find_lens
from engine.planning.shared_prompts import ends_with_prompt
from engine.progress import StopRequest, silent
from engine.stages import watched_passes
from engine.stages.probe import probe_layers
from engine.stages.probe_layout import probe_family
from engine.stages.watched_passes import KeptPasses, Streams
from specs.tables.probe import Probe

ONE = ("--only", "seed=0", "--only", "target=label+explanation", "--set", "evaluate.batch_size=2")
PROBE = """
[probe]
batch_size = 2
heads = true
activation = true
positions = [-2, "prompt_end"]
lens = "tuned"
tuned = { steps = 2, tokens = 40 }
"""
WHERE = """
[factors.where.levels]
end = { probe.positions = ["prompt_end"] }
both = { probe.positions = ["prompt_end", "completion_end"] }
head = { probe.positions = [-40, "prompt_end"] }
"""


@contextmanager
def passes() -> Iterator[list[int]]:
    """Count the sequences of each pass of a model."""
    counted: list[int] = []
    original = Lens.last_hidden

    def last_hidden(self: Lens, ids: torch.Tensor, mask: Any = None) -> torch.Tensor:
        counted.append(len(ids))
        return original(self, ids, mask)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lens, "last_hidden", last_hidden)
        yield counted


def test_a_shared_pass_gives_what_two_give_to_the_bit(
    tmp_path: Path, tiny_model: Path, rated_file: Path
) -> None:
    """Also where the probe ends early, and goes on without the evaluation."""
    for folder in ("together", "apart"):
        (tmp_path / folder).mkdir()
        small_spec(tmp_path / folder, tiny_model, rated_file, PROBE, train="steps = 1")
    with passes() as shared:
        engine("execute", tmp_path / "together/small.toml", *ONE)
    injected = faults.raising(RuntimeError("injected"))
    with passes() as twice, faults.calls("engine.stages.lens_values.lens_statistics", injected, at=3):
        engine("execute", tmp_path / "apart/small.toml", *ONE, code=1)
        evaluated = len(twice)
        engine("execute", tmp_path / "apart/small.toml", *ONE, "--retry-failed")
    assert len(shared) == evaluated
    assert twice[-3:] == [2, 2, 2]
    assert_same(contents(tmp_path / "together/store"), contents(tmp_path / "apart/store"))


def test_other_prompts_and_batches_are_run_by_the_probe_itself(
    tmp_path: Path, tiny_model: Path, rated_file: Path
) -> None:
    probe = '[probe]\nbatch_size = 2\nexamples = 4\npositions = ["prompt_end", "completion_end"]\n'
    spec = small_spec(tmp_path, tiny_model, rated_file, probe, train="steps = 0")
    with passes() as counted:
        engine("execute", spec, *ONE)
    assert counted[-2:] == [2, 2]


def test_which_of_two_cells_evaluates_changes_no_bit(
    tmp_path: Path, tiny_model: Path, rated_file: Path
) -> None:
    """Of no probe either, though one watches what all prompts begin with, so that they run whole."""
    long = f'prompt.template="{"the model rates a reply as good or bad " * 5}{{response}}:"'
    alike, counts, found, scores = (*ONE, "--set", long, "--set", "probe.batch_size=2"), {}, {}, {}
    for first in ("end", "both", "head", "none"):
        (tmp_path / first).mkdir()
        spec = small_spec(tmp_path / first, tiny_model, rated_file, WHERE, train="steps = 1")
        none = ("--set", "probe.enabled=false", "--only", "where=both")
        with passes() as counted:
            engine("execute", spec, *alike, *(none if first == "none" else ("--only", f"where={first}")))
        engine("execute", spec, *alike, *(none if first == "none" else ()))
        counts[first] = len(counted)
        found[first] = contents(tmp_path / first / "store")
        evaluations = store.open_store(tmp_path / first / "store")["small/evaluate"]
        scores[first] = evaluations.label_logprob.sel(where="both").values
    assert_same(found["both"], found["end"])
    assert_same(found["head"], found["end"])
    np.testing.assert_allclose(scores["none"], scores["end"], rtol=1e-4, atol=1e-5)
    assert counts["none"] < counts["end"]  # all behind a prefix, and none


def test_heads_that_cannot_be_watched_fail_the_probe_alone(
    tmp_path: Path, tiny_model: Path, rated_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise EngineError("probe.heads: injected")

    monkeypatch.setattr(watched_passes, "watching_heads", refuse)
    spec = small_spec(tmp_path, tiny_model, rated_file, PROBE, train="steps = 0")
    output = engine("execute", spec, *ONE, code=1).output
    assert "probe.heads: injected" in output and "1 evaluate" in output


def test_what_is_kept_is_for_one_probe_once_and_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, streams = KeptPasses(), Streams([torch.zeros(1, 1, 4)], [], [])
    kept.keep([[1, 2]], [[1]], streams)  # nobody has asked
    assert kept.take("", [[1, 2]], [[1]]) is None
    monkeypatch.setattr(watched_passes, "KEPT_BYTES", 16)
    kept.begin("a")
    kept.keep([[1, 2]], [[1]], streams)
    kept.keep([[3, 4]], [[1]], streams)  # no room
    assert kept.take("b", [[1, 2]], [[1]]) is None and kept.take("a", [[1, 2]], [[0]]) is None
    assert kept.take("a", [[3, 4]], [[1]]) is None
    assert kept.take("a", [[1, 2]], [[1]]) is not None
    assert kept.take("a", [[1, 2]], [[1]]) is None
    with pytest.raises(ZeroDivisionError), kept.unless_it_fails():
        kept.begin("a")
        raise ZeroDivisionError
    assert kept.key == ""


def test_only_probes_of_the_prompts_end_can_share() -> None:
    assert all(ends_with_prompt(Probe(positions=own)) for own in (["prompt_end"], ["label", -3], [-1]))
    assert not any(
        ends_with_prompt(Probe(positions=own)) for own in ([-2], ["prompt_end", 0], ["completion_end"])
    )


@pytest.mark.parametrize("start", [0, 1, 4, 5])
def test_a_probe_goes_on_from_inside_a_window(
    start: int, tiny_model: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "WINDOW", 2)
    rows = [
        {"id": str(i), "context": "a", "response": "good " * (7 * i % 6), "label": "1", "explanation": ""}
        for i in range(6)
    ]
    lens = find_lens(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval())
    text, probe = writer(tokenizer), Probe(batch_size=2)
    family = probe_family(rows, range(4), {"1": 5}, probe, 4)

    def probed(first: int) -> dict[str, np.ndarray]:
        parts = probe_layers([lens], tokenizer, text, rows, family, probe, silent, StopRequest(), start=first)
        values = [part for _, part in parts]
        return {name: np.concatenate([part[name] for part in values]) for name in values[0]}

    whole = probed(0)
    for name, values in probed(start).items():
        np.testing.assert_array_equal(values, whole[name][start:], err_msg=name)
    monkeypatch.setattr(windows, "WINDOW", 9)
    np.testing.assert_allclose(probed(0)["entropy"], whole["entropy"], rtol=1e-4)
