"""What a plan says of sweeps: the passes that they take, those that are large, those that are too large."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from drawn_differences import drawn
from facts import told
from small_study import writer
from two_trainings import EXAMPLES, LABELS, Study

import engine as python
from engine.errors import UsageError
from engine.models.lens import find_lens
from engine.planning.changes import Entry, ModelShape
from engine.planning.intervention_cost import SweepSize
from engine.planning.sweeps import MOST_CHANGES, expand
from engine.planning.warnings import plan_warnings
from engine.progress import StopRequest, silent
from engine.stages.interventions.directions import Directions
from engine.stages.interventions.inputs import Input
from engine.stages.interventions.intervene import InterventionRun
from specs.tables.evaluate import Evaluate
from specs.tables.interventions import Intervention
from specs.tables.probe import Probe

SHAPE = ModelShape(layers=3, heads=4)
OWN: dict[str, Any] = {"donor": "own", "input": "other example"}
SWEEPS: dict[str, list[dict[str, Any]]] = {
    "windows": [{"kind": "mask", "width": [1, 2]}],
    "grid": [{"kind": "patch", "positions": [-1, -2, -3], "grid": True}],
    "grids of streams": [
        {"kind": "patch", "stream": stream, "positions": [-1, -2], "grid": True, **OWN}
        for stream in ("attention", "mlp")
    ],
    "heads resampled": [{"kind": "heads", "ablation": "resample"}],
    "zero": [{"kind": "ablate", "stream": "mlp", "sweep": "below"}],
    "paths to the end": [{"kind": "path", "sender": "mlp"}, {"kind": "path", "sender": "heads", **OWN}],
    "paths to heads": [{"kind": "path", "sender": "heads", "heads": [1], "receiver": "heads"}],
    "paths to MLPs": [{"kind": "path", "receiver": "mlp"}],
    "steering": [{"kind": "steer", "strength": [1, 2]}, {"kind": "steer", "onto": "own", "sweep": "above"}],
}


def entries(sweep: str) -> list[Entry]:
    found = []
    for number, options in enumerate(SWEEPS[sweep]):
        settings = Intervention(name=f"sweep {number}", **options)
        source = "default" if settings.takes_own else "donor"
        found.append(Entry(settings, source, source, settings.reads, against="base"))
    return found


@pytest.mark.parametrize("sweep", SWEEPS)
def test_the_passes_counted_are_those_that_run(tmp_path: Path, tokenizer: Any, sweep: str) -> None:
    """Sequences through each layer's attention, of a batch behind the first."""
    study = Study("llama", tmp_path, tokenizer)
    size = SweepSize.of(entries(sweep), SHAPE)
    rows: list[int] = []
    with study.arranged() as arranged:
        inputs = {"other example": Input([*EXAMPLES[1:], EXAMPLES[0]], writer(tokenizer))}
        probe = Probe(batch_size=2, backend="torch")
        lens = find_lens(arranged.model)
        run = InterventionRun(
            arranged, tokenizer, writer(tokenizer), Evaluate(labels=LABELS), probe, inputs,
            Directions(drawn(lens.width), 0),
        )  # fmt: skip
        for layer in lens.layers:
            layer.self_attn.register_forward_pre_hook(
                lambda _, args, kwargs: rows.append(len((args or (kwargs["hidden_states"],))[0])),
                with_kwargs=True,
            )
        batches = run.run(EXAMPLES, size.changes, silent, StopRequest())
        next(batches)
        rows.clear()
        next(batches)
    assert sum(rows) == pytest.approx(size.passes * 2 * SHAPE.layers)


def test_a_sweep_that_no_one_can_mean_is_refused_with_its_size() -> None:
    settings = Intervention(
        name="all", kind="path", sender="heads", receiver="heads", positions=[-1, -2], grid=True, **OWN
    )
    with pytest.raises(UsageError, match=r"all\.layers: found 2,097,152 changes") as caught:
        expand([Entry(settings, "", "own", settings.reads)], ModelShape(layers=32, heads=32))
    assert told(str(caught.value), "32 sets of layers", "32 heads", "1,024 receivers", "2 positions")
    assert f"{MOST_CHANGES:,}" in str(caught.value)
    with pytest.raises(UsageError, match=r"late\.receiver_layers: no receiver"):
        late = Intervention(name="late", kind="path", layers=[3], receiver="attention", **OWN)
        expand([Entry(late, "", "own", late.reads)], SHAPE)


def test_a_large_sweep_is_told_with_its_passes(write_spec: Any) -> None:
    positions = list(range(-600, 0))
    more = f"""
[[interventions]]
name = "wide"
kind = "ablate"
stream = "mlp"
positions = {positions}
grid = true
"""
    said = "\n".join(plan_warnings(python.plan(write_spec(more))))
    # 600 positions, each behind 0, 1 and 2 of 3 layers, and the model as it is.
    assert told(said, "interventions: 1,801 changes", "1,201 passes", "each of 4 cells", '"wide" has 1,800')
    few = more.replace(str(positions), "[-1, -2]")
    assert "interventions:" not in "\n".join(plan_warnings(python.plan(write_spec(few))))


def test_a_path_begins_below_what_it_ends_at() -> None:
    def ends(**options: Any) -> list[tuple[Any, ...]]:
        settings = Intervention(name="x", kind="path", **options, **OWN)
        changes = expand([Entry(settings, "", "own", settings.reads)], SHAPE)
        return [(*change.layers, change.received) for change in changes if change.path]

    assert ends() == [(1, "final"), (2, "final"), (3, "final")]
    assert ends(receiver="attention") == [(1, "attention 2"), (1, "attention 3"), (2, "attention 3")]
    assert ends(receiver="mlp", layers=[2]) == [(2, "mlp 2"), (2, "mlp 3")]
    assert ends(receiver="mlp", sender="mlp", layers=[2]) == [(2, "mlp 3")]
    heads = ends(receiver="heads", sender="heads", layers=[1], heads=[2], receiver_layers=[-1])
    assert heads == [(1, f"head 3.{head}") for head in range(4)]
