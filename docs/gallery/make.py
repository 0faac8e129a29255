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
from matplotlib import pyplot as plt

import store
from store import plots

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
sys.path.insert(0, str(Path(__file__).parent))
from drawn_experiments import PROMOTED, attributed, lenses, read, trained
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
# What draws each figure; `study` and `sets` are experiments, `trained` has a node `along`, `parts` a `probe`.
CODE = {
    "change": """\
result = study.ablation.relative_entropy("target", "label")
figure = plots.change(result.sel(position="prompt_end"))""",
    "lens_agreement": """\
result = lenses.ablation.lens_agreement(by="target")
figure = plots.lens_agreement(result.sel(position="prompt_end", level="label"))""",
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
# What else the probe measures, in the same figures: by the name of the image what is shown, and the lines.
MORE = {
    "geometry": (
        "Geometry by layer: the effective rank of the residual streams (`probe.geometry`).",
        """\
result = read.ablation.means("effective_rank", "target")
figure = plots.means(result)""",
    ),
    "divergences": (
        "How far conditions are from another model on the same inputs (`probe.against`).",
        """\
figure = plots.means(read.ablation.divergence_from("base", "js", by="target"))""",
    ),
    "streams": (
        "What attention and MLP add, through final norm and unembedding (`probe.streams`).",
        """\
result = read.ablation.means("stream_entropy", "target")
figure = plots.means(result.sel(level="label"))""",
    ),
    "mean_differences": (
        "The norm of the mean difference from another model, and the token that it promotes "
        "(`probe.differences`).",
        """\
moved = read["differences"].to_dataset().isel(cell=0)
figure = plots.layer_tokens(moved, tokens=texts, variable="difference_norm")""",
    ),
}
HEAD = """\
# Gallery

Every figure of `store.plots`, with the lines that draw it. `study`, `sets`, `trained`, `parts`, `read` and
`lenses` are experiments of a synthetic store, whose numbers are drawn at random;
`study = store.open_store(root)["NAME"]` opens yours.
[analysis.md](analysis.md) says what each analysis does, and `result.attrs["method"]` what bands and
marks are.

`plots.save(figure, "figure.pdf")` writes PDF, SVG or PNG. `make gallery` makes this page.
"""


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
        names |= {"trained": trained(), "parts": attributed(), "read": read(), "lenses": lenses()}
        names |= {"store": store, "plots": plots}
        drawn = [(name, _first_line(name), code) for name, code in CODE.items()]
        for name, said, code in [*drawn, *((name, *more) for name, more in MORE.items())]:
            names["texts"] = PROMOTED if name in MORE else None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of few seeds: the numbers mean nothing
                exec(code, names)
            plots.save(names["figure"], images / f"{name}.svg")
            plt.close("all")
            link = images.name
            parts.append(
                f"## {name}\n\n{said}\n\n```python\n{code}\n```\n\n![{name}](images/{link}/{name}.svg)\n"
            )
        shutil.rmtree(root)
    page.write_text("\n".join(parts), "utf-8")


def _first_line(name: str) -> str:
    """Give what a figure's docstring says first."""
    return (inspect.getdoc(getattr(plots, name)) or "").splitlines()[0]


if __name__ == "__main__":
    main()
