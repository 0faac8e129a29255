"""The tutorial's cells run from first to last, and its outputs are there."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from commands import engine
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from small_study import make_llama

NOTEBOOK = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"


@pytest.fixture(scope="module")
def deep_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random-weight Llama as deep as the demo's model, so that layers 15 to 30 are there."""
    return make_llama(
        tmp_path_factory.mktemp("deep-llama"),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=30,
        num_attention_heads=2,
        max_position_embeddings=2048,
    )


def sources() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.demo
def test_every_cell_runs(deep_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(NOTEBOOK.parent)
    mpl.use("Agg")
    names: dict[str, Any] = {}
    first, *others = sources()
    exec(first, names)
    names["STORE"] = tmp_path / "absent"  # so that the studies are made, which a person's store would spare
    names["QUICK"] += ["--set", f"model.id={deep_model}", "--set", "probe.examples=8"]
    for name in ("ablation", "saturation", "variability"):  # of the four, the notebook makes one by itself
        spec = NOTEBOOK.parents[1] / "specs" / "studies" / f"{name}-small.toml"
        engine("execute", spec, "--store", names["SCRATCH"], *names["QUICK"])
    figures = 0
    for source in others:
        *statements, last = ast.parse(source).body
        exec(compile(ast.Module(statements, []), "tutorial", "exec"), names)
        shown = eval(ast.unparse(last), names) if isinstance(last, ast.Expr) else None
        figures += isinstance(shown, Figure) + len(plt.get_fignums())
        plt.close("all")
    assert figures >= 9
    assert not names["STORE"].exists() and (names["SCRATCH"] / "results.zarr").exists()


def test_the_outputs_are_those_of_one_whole_run() -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 9
    assert NOTEBOOK.stat().st_size < 400_000
