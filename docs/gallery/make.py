"""docs/gallery.md and its figures: every function of `store.plots`, with the lines that draw it.

`make gallery` runs it. The store is a synthetic one, whose numbers are drawn at random.
"""

from __future__ import annotations

import inspect
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib import pyplot as plt

import store
from store import plots

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
from report_store import Design, write_synthetic

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "gallery.md"
IMAGES = ROOT / "docs" / "images" / "gallery"
DESIGN = Design(
    {"target": ["label", "label+explanation", "label+shuffled"], "rank": [4, 16]},
    name="study",
    seeds=(0, 1, 2),
    examples=60,
    layers=17,
    interventions=(
        {"name": "off", "kind": "mask", "width": [1, 4]},
        {
            "name": "grid",
            "kind": "patch",
            "donor": "own",
            "input": "other label",
            "grid": True,
            "positions": [-6, -5, -4, -3, -2, "prompt_end"],
        },
        {"name": "steer", "kind": "steer", "strength": [1.0, 2.0]},
    ),
)
SETS = Design(
    {"train_on": ["reviews", "forums", "mails"], "test_on": ["reviews", "forums", "mails"]},
    name="sets",
    seeds=(0, 1, 2),
    examples=60,
    probe=False,
)
STEPS = [0.0, 0.1, 0.25, 0.5, 1.0]  # shares of a training after which `trained` was probed
# What draws each figure; `study` and `sets` are experiments, `trained` has a node `along`, `parts` a `probe`.
CODE = {
    "change": """\
result = study.ablation.relative_entropy("target", "label")
figure = plots.change(result.sel(position="prompt_end"))""",
    "means": """\
result = study.ablation.means("entropy", "target")
figure = plots.means(result.sel(position="prompt_end"))""",
    "attribution": """\
result = parts.ablation.means("label_attribution")
figure = plots.attribution(result.sel(level="target=label"))""",
    "along": """\
result = trained.ablation.means("entropy", stage="along")
figure = plots.along(result)""",
    "rank_trajectory": """\
result = study.ablation.rank_trajectory("target")
figure = plots.rank_trajectory(result.sel(position="prompt_end", level="label"))""",
    "saturation": """\
result = study.ablation.saturation("target", threshold=0.5)
figure = plots.saturation(result.sel(position="prompt_end"))""",
    "intervention_effects": """\
result = study.ablation.select(rank=4).ablation.intervention_effects("off", "log_odds")
figure = plots.intervention_effects(result)""",
    "patching_grid": """\
result = study.ablation.select(target="label", rank=4).ablation.patching_grid("grid", "logit_difference")
figure = plots.patching_grid(result)""",
    "steering": """\
result = study.ablation.select(target="label", rank=4).ablation.steering("steer", "log_odds")
figure = plots.steering(result.sel(condition="target=label, rank=4"))""",
    "calibration_curve": """\
figure = plots.calibration_curve(study.ablation.calibration_curve("target"))""",
    "confusion": """\
result = study.ablation.confusion("target", normalize="gold")
figure = plots.confusion(result.sel(level="label"))""",
    "transfer_matrix": """\
figure = plots.transfer_matrix(sets.ablation.transfer_matrix("train_on", "test_on"))""",
    "training": """\
figure = plots.training(study.ablation.select(rank=4))""",
    "layer_tokens": """\
probe = study["probe"].to_dataset()
texts = store.read_vocabulary(root, probe.attrs["vocabulary"])
cell = probe.sel(target="label", rank=4, seed=0, position="prompt_end")
figure = plots.layer_tokens(cell.isel(example=slice(8)), tokens=texts)""",
    "panels": """\
result = study.ablation.relative_entropy("target", "label")
figure = plots.panels(plots.change, result, "position")""",
}
HEAD = """\
# Gallery

Every figure of `store.plots`, with the lines that draw it. `study`, `sets`, `trained` and `parts` are
experiments of a synthetic store, whose numbers are drawn at random; `study = store.open_store(root)["NAME"]`
opens yours.
[analysis.md](analysis.md) says what each analysis does, and `result.attrs["method"]` what bands and
marks are.

`plots.save(figure, "figure.pdf")` writes PDF, SVG or PNG. `make gallery` makes this page.
"""


def trained() -> xr.DataTree:
    """Give an experiment that was probed along its trainings: entropies that fall."""
    rng = np.random.default_rng(0)
    targets, seeds = ["label", "label+explanation"], [0, 1, 2]
    falls = np.array([1.0, 0.6]).repeat(len(seeds))[:, None, None] * np.sqrt(STEPS)[:, None]
    apart = 0.1 * rng.normal(size=(6, 1, 1)) + 0.3 * rng.normal(size=(6, 1, 60))
    values = 2 - falls + apart + 0.1 * rng.normal(size=(6, len(STEPS), 60))
    node = xr.Dataset(
        {"entropy": (("cell", "step", "example"), values, {"units": "nat", "long_name": "entropy"})},
        {
            "target": ("cell", np.repeat(np.array(targets, object), len(seeds))),
            "seed": ("cell", seeds * len(targets)),
            "step": ("step", STEPS, {"long_name": "share of the steps"}),
        },
    )
    return xr.DataTree.from_dict({"along": node}, name="trained")


def attributed() -> xr.DataTree:
    """Give an experiment whose labels' logits were attributed to what blocks add."""
    rng = np.random.default_rng(1)
    components, layers, examples = ["embedding", "attention", "mlp", "bias"], 9, 60
    shape = np.zeros((layers, len(components)))
    shape[0, [0, 3]] = [0.1, -0.05]
    shape[1:, 1] = 0.5 * np.exp(-((np.arange(1, layers) - 5) ** 2) / 4)
    shape[1:, 2] = np.linspace(-0.2, 0.5, layers - 1)
    values = shape + (shape != 0) * 0.4 * rng.normal(size=(3, examples, layers, len(components)))
    values[:, :, 1:, [0, 3]] = values[:, :, :1, [1, 2]] = np.nan
    by_label = np.stack([values, -values], axis=-1)
    axes = ("cell", "example", "layer", "component", "watch")
    node = xr.Dataset(
        {"attribution": (axes, by_label / 2, {"units": "nat", "long_name": "attribution"})},
        {
            "target": ("cell", np.array(["label"] * 3, object)),
            "seed": ("cell", [0, 1, 2]),
            "layer": ("layer", range(layers), {"long_name": "layer, 0 = embedding"}),
            "component": ("component", components),
            "watch": ("watch", ["1", "2"]),
            "watch_id": ("watch", [16, 17]),
            "gold": ("example", np.array(["1"] * examples, object)),
        },
    )
    return xr.DataTree.from_dict({"probe": node}, name="parts")


def main(page: Path = PAGE, images: Path = IMAGES) -> None:
    """Write the page and the figures."""
    mpl.use("Agg")
    parts = [HEAD]
    images.mkdir(parents=True, exist_ok=True)
    for left in images.glob("*.svg"):
        left.unlink()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "store"
        for design in (DESIGN, SETS):
            write_synthetic(root, design)
        tree = store.open_store(root)
        names: dict[str, Any] = {"study": tree["study"], "sets": tree["sets"], "root": root}
        names |= {"trained": trained(), "parts": attributed()}
        names |= {"store": store, "plots": plots}
        for name, code in CODE.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of few seeds: the numbers mean nothing
                exec(code, names)
            plots.save(names["figure"], images / f"{name}.svg")
            plt.close("all")
            said = inspect.getdoc(getattr(plots, name)) or ""
            link = images.name
            parts.append(
                f"## {name}\n\n{said.splitlines()[0]}\n\n```python\n{code}\n```\n\n"
                f"![{name}](images/{link}/{name}.svg)\n"
            )
        shutil.rmtree(root)
    page.write_text("\n".join(parts), "utf-8")


if __name__ == "__main__":
    main()
