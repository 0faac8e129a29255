"""Figures from a real store: they show the numbers of the analyses, labelled, and save as vectors."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from facts import facts
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.figure import Figure
from report_store import Design, write_synthetic

from store import StoreError, open_store, plots, read_vocabulary
from store.plots.style import lines, shortened, styled
from store.tokens import token_text

TARGETS = ["label", "label+explanation"]


@pytest.fixture
def tree(small_store: Path) -> xr.DataTree:
    return open_store(small_store)["small"]


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def names(ax: Axes | Figure) -> list[str]:
    (legend,) = [ax.get_legend()] if isinstance(ax, Axes) else ax.legends
    return [text.get_text() for text in legend.get_texts()]


def inside(ax: Axes, *values: np.ndarray) -> bool:
    low, high = sorted(ax.get_ylim())
    return all(low <= np.nanmin(v) and np.nanmax(v) <= high for v in values)


def test_entropy_has_a_line_and_a_band_per_condition(tree: xr.DataTree) -> None:
    found = tree.ablation.means("entropy").sel(position="prompt_end")
    ax = plots.means(found)
    assert names(ax) == TARGETS and ax.get_legend().get_title().get_text() == "target"
    for number, line in enumerate(ax.lines):
        np.testing.assert_array_equal(line.get_xdata(), [0, 1, 2, 3])
        np.testing.assert_array_equal(line.get_ydata(), found["mean"].isel(level=number))
    bands = [shape for shape in ax.collections if isinstance(shape, FillBetweenPolyCollection)]
    for number, band in enumerate(bands):
        heights = band.get_paths()[0].vertices[:, 1]
        own = found.isel(level=number)
        assert heights.min() == pytest.approx(float(own["low"].min()))
        assert heights.max() == pytest.approx(float(own["high"].max()))
    assert len(ax.lines) == len(bands) == 2
    assert ax.get_xlabel() == "layer, 0 = embedding"
    assert ax.get_ylabel() == "entropy of the lens distribution (nat)"
    assert inside(ax, found["mean"].values, found["high"].values)
    assert ax.get_figure().get_size_inches()[0] == pytest.approx(plots.COLUMN)


def test_a_contrast_marks_the_layers_whose_p_value_is_small(tree: xr.DataTree) -> None:
    found = tree.ablation.change("entropy", "target", "label").sel(position="prompt_end")
    found["p_adjusted"][0, :] = [0.01, np.nan, 0.2, 0.049]
    ax = plots.change(found)
    zero, curve, marks = ax.lines
    assert set(zero.get_ydata()) == {0}
    np.testing.assert_array_equal(curve.get_ydata(), found["difference"].isel(level=0))
    np.testing.assert_array_equal(marks.get_xdata(), [0, 3])
    assert inside(ax, found["low"].values, found["high"].values)
    assert ax.get_ylabel() == "difference from label (nat)"
    words = "■ p < 0.05, Holm's correction over the 4 layers and 2 positions of target"
    assert ax.get_legend().get_title().get_text().replace("\n", " ") == words
    strict = plots.change(found, alpha=0.001)
    assert len(strict.lines[-1].get_xdata()) == 0
    assert strict.get_legend().get_title().get_text().startswith("no layer has p < 0.001")


def test_effects_are_drawn_without_the_mean(tree: xr.DataTree) -> None:
    found = tree.ablation.effects("entropy", ["target"]).sel(position="prompt_end")
    ax = plots.change(found)
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), found["effect"].isel(term=1))


def test_ranks_run_from_the_top_down(tree: xr.DataTree) -> None:
    found = tree.ablation.rank_trajectory(by="target").sel(position="prompt_end", level="label")
    ax = plots.rank_trajectory(found)
    assert names(ax) == ["1", "2", "3", "true label"]
    bottom, top = ax.get_ylim()
    assert bottom > found["upper"].max() and top < 0
    assert ax.get_ylabel() == "median rank, 0 = top"


def test_saturation_is_a_share(tree: xr.DataTree) -> None:
    found = tree.ablation.saturation("target", threshold=0.01, permutations=9).sel(position="prompt_end")
    ax = plots.saturation(found)
    assert [line.get_drawstyle() for line in ax.lines] == ["steps-post"] * 2
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), found["survival"].isel(level=0))
    assert ax.get_ylim()[0] <= 0 and ax.get_ylim()[1] >= 1


def test_a_transfer_matrix_writes_value_and_interval(tree: xr.DataTree) -> None:
    found = tree.ablation.transfer_matrix("target", "seed")
    found["value"][0, 1] = np.nan  # a pair that the design leaves out
    ax = plots.transfer_matrix(found)
    value, low, high = (float(found[name][0, 0]) for name in ("value", "low", "high"))
    texts = [text.get_text() for text in ax.texts]
    assert texts[:2] == [f"{value:.2f}\n{low:.2f}–{high:.2f}", ""] and len(texts) == 4
    assert [label.get_text() for label in ax.get_yticklabels()] == TARGETS
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("trained on (target)", "tested on (seed)")


def test_a_confusion_matrix_shows_every_count(tree: xr.DataTree) -> None:
    found = tree.ablation.confusion("target").sel(level="label")
    ax = plots.confusion(found)
    written = [int(text.get_text()) for text in ax.texts]
    assert written == found["count"].values.ravel().tolist() and sum(written) == 12


def test_calibration_shows_the_bins_with_examples(tree: xr.DataTree) -> None:
    found = tree.ablation.calibration_curve("target", bins=5)
    ax = plots.calibration_curve(found)
    assert names(ax) == [f"{t} (ECE {float(found['ece'].sel(level=t)):.2f})" for t in TARGETS]
    filled = found.isel(level=0, bin=found["count"].isel(level=0).values > 0)
    np.testing.assert_array_equal(ax.lines[1].get_xdata(), filled["confidence"])
    assert ax.get_xlim() == ax.get_ylim() == (0, 1)


def test_training_curves_show_mean_and_seeds(tree: xr.DataTree) -> None:
    ax = plots.training(tree)
    loss = tree["train"].to_dataset()["loss"].sel(target="label")
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), loss.isel(seed=0))
    np.testing.assert_allclose(ax.lines[2].get_ydata(), loss.mean("seed"))
    assert len(ax.lines) == 6 and names(ax) == TARGETS and "(nat)" in ax.get_ylabel()


@pytest.mark.parametrize("column", ["example", "position"])
def test_the_heat_map_writes_top_tokens(tree: xr.DataTree, small_store: Path, column: str) -> None:
    probe = tree["probe"].to_dataset().sel(target="label", seed=1)
    texts = read_vocabulary(small_store, probe.attrs["vocabulary"])
    own = probe.sel(position="prompt_end") if column == "example" else probe.isel(example=0)
    ax = plots.layer_tokens(own, tokens=texts)
    top = own["top_id"].isel(top=0).transpose("layer", column).values
    written = np.array([text.get_text() for text in ax.texts]).reshape(top.shape)
    for shown, number in zip(written.ravel(), top.ravel(), strict=True):
        whole = token_text(number, texts)
        assert shown == whole or (shown.endswith("…") and whole.startswith(shown[:-1]))
    np.testing.assert_array_equal(ax.images[0].get_array(), own["entropy"].transpose("layer", column))
    assert ax.get_ylim()[0] < ax.get_ylim()[1]  # the last layer on top


def test_panels_share_axes_and_one_legend(tree: xr.DataTree, tmp_path: Path) -> None:
    found = tree.ablation.change("entropy", "target", "label")
    found["difference"][{"position": 1}] *= 3
    figure = plots.panels(plots.change, found, "position")
    left, right = figure.axes
    assert (left.get_title(), right.get_title()) == ("prompt_end", "completion_end")
    assert left.get_ylim() == right.get_ylim() and inside(left, found["difference"].values)
    assert left.get_legend() is right.get_legend() is None and names(figure) == ["label+explanation"]
    assert left.get_ylabel() and not right.get_ylabel()
    assert figure.get_size_inches()[0] == pytest.approx(plots.WIDE)


def test_vector_files_hold_text_and_no_date(tree: xr.DataTree, tmp_path: Path) -> None:
    found = tree.ablation.means("entropy").sel(position="prompt_end")
    once, twice = ([plots.save(plots.means(found), tmp_path / run / f"figure.{end}").read_bytes()
                    for end in ("svg", "pdf")] for run in ("a", "b"))  # fmt: skip
    assert once == twice
    svg, pdf = once
    assert "label+explanation</text>" in svg.decode() and "layer, 0 = embedding" in svg.decode()
    assert pdf.startswith(b"%PDF") and b"/FontFile2" in pdf  # TrueType, which editors keep as text


def test_nothing_is_drawn_over_the_data_or_cut_off(tree: xr.DataTree) -> None:
    found = tree.ablation.means("entropy").isel(position=0)
    ax = plots.means(found)
    figure = ax.get_figure()
    figure.draw_without_rendering()
    legend = ax.get_legend().get_window_extent()
    assert legend.y0 >= ax.get_window_extent().y1 - 1
    page = figure.bbox
    box = figure.get_tightbbox().transformed(figure.dpi_scale_trans)
    assert box.x0 >= page.x0 and box.x1 <= page.x1 and box.y1 <= page.y1


def test_what_cannot_be_drawn_is_named(tree: xr.DataTree) -> None:
    found = tree.ablation.means("entropy")
    with pytest.raises(StoreError, match=facts("position", "2", "prompt_end, compl…")):
        plots.means(found)
    with pytest.raises(StoreError, match=facts("change or effects", "'difference'", "mean")):
        plots.change(found.isel(position=0))
    with pytest.raises(StoreError, match="found 'positon'"):
        plots.panels(plots.means, found, "positon")
    with pytest.raises(StoreError, match=facts("6 examples", "2 positions")):
        plots.layer_tokens(tree["probe"].to_dataset().sel(target="label", seed=0))


def test_the_style_is_this_packages_alone(tree: xr.DataTree) -> None:
    """Drawing leaves a person's settings alone, and those that a notebook's backend makes meanwhile."""
    before = dict(mpl.rcParams)
    with styled():
        assert mpl.rcParams["font.size"] == 7
        mpl.rcParams["interactive"] = not before["interactive"]
    assert mpl.rcParams["interactive"] != before["interactive"]
    mpl.rcParams["interactive"] = before["interactive"]
    plots.panels(plots.means, tree.ablation.means("entropy"), "position")
    assert dict(mpl.rcParams) == before


def test_conditions_lose_what_they_share() -> None:
    assert shortened(["target=a, rank=8", "target=b, rank=16"]) == (["a, 8", "b, 16"], "target, rank")
    assert shortened(["target=a", "target=a, rank=8"]) == (["target=a", "target=a, rank=8"], "")
    assert shortened(["label", "x=1"]) == (["label", "x=1"], "")
    assert shortened([8, 16]) == (["8", "16"], "")


def test_tokens_can_be_seen() -> None:
    texts = [" the", "  ", "a\nb", "\xa0", "$x$", "日"]
    assert [token_text(i, texts) for i in range(6)] == ["␣the", "␣␣", "a⏎b", r"\xa0", "$x$", "日"]
    assert token_text(6, texts) == "6" and token_text(-1, texts) == "-1" and token_text(2, None) == "2"


def test_lines_differ_in_more_than_colour() -> None:
    looks = [(own["linestyle"], own["color"]) for own in lines(28)]
    assert len(set(looks)) == 28
    assert all(a[0] != b[0] and a[1] != b[1] for a, b in pairwise(looks))
    assert len({dash for dash, _ in looks[:4]}) == 4


def test_long_names_stay_on_the_page(tree: xr.DataTree) -> None:
    found = tree.ablation.means("entropy").isel(position=0)
    long = [f"target={'label+explanation+' * 4}{n}, instruction={'a very long wording ' * 3}" for n in (1, 2)]
    ax = plots.means(found.assign_coords(level=long))
    figure = ax.get_figure()
    figure.draw_without_rendering()
    box = ax.get_legend().get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1


def test_effects_of_many_conditions_have_their_legend_on_the_page(tmp_path: Path) -> None:
    design = Design(
        {"target": ["label", "label+explanation", "label+shuffled"], "instruction": ["none", "original"]},
        examples=3,
        layers=9,
        interventions=[{"name": "off", "kind": "mask", "width": [1, 4]}],
    )
    tree = open_store(write_synthetic(tmp_path / "store", design))["synthetic"]
    ax = plots.intervention_effects(tree.ablation.intervention_effects("off", "log_odds"))
    figure = ax.get_figure()
    figure.draw_without_rendering()
    box = ax.get_legend().get_window_extent()
    assert len(names(ax)) == 12
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 and box.y1 <= figure.bbox.y1
    assert ax.get_window_extent().height > 100


@pytest.mark.parametrize("share", [True, False])
def test_steering_draws_strengths_beside_random_directions(tmp_path: Path, share: bool) -> None:
    steer = {"name": "steer", "kind": "steer", "strength": [1.0, -2.0], "random_directions": 3}
    design = Design({"target": ["label"]}, seeds=(0, 1, 2), examples=20, layers=5, interventions=[steer])
    tree = open_store(write_synthetic(tmp_path / "store", design))["synthetic"]
    found = tree.ablation.steering("steer").isel(condition=0)
    name = "share" if share else "effect"
    ax = plots.steering(found, share=share)
    assert names(ax) == ["1 × mean difference", "-2 × mean difference", "random directions"]
    drawn = [line for line in ax.lines if len(line.get_xdata()) == 4]
    for number, line in enumerate(drawn):
        np.testing.assert_array_equal(line.get_ydata(), found[name].isel(strength=number))
    bands = [shape for shape in ax.collections if isinstance(shape, FillBetweenPolyCollection)]
    for number, band in enumerate(bands):
        heights = band.get_paths()[0].vertices[:, 1]
        assert heights.min() == pytest.approx(float(found[f"random_{name}_lowest"][:, number].min()))
        assert heights.max() == pytest.approx(float(found[f"random_{name}_highest"][:, number].max()))
    assert len(drawn) == len(bands) == 2


def test_means_along_a_training_lie_over_its_steps() -> None:
    rng, dims = np.random.default_rng(0), ("cell", "step", "example")
    node = xr.Dataset(
        {"entropy": (dims, rng.normal(size=(4, 3, 8)), {"units": "nat", "long_name": "entropy"})},
        {
            "target": ("cell", np.repeat(np.array(TARGETS, object), 2)),
            "seed": ("cell", [0, 1, 0, 1]),
            "step": ("step", [0.0, 0.5, 1.0], {"long_name": "share of the steps"}),
        },
    )
    found = node.ablation.means("entropy", stage="along")
    ax = plots.along(found)
    assert names(ax) == TARGETS and ax.get_xlabel() == "share of the steps"
    for number, line in enumerate(ax.lines):
        np.testing.assert_array_equal(line.get_xdata(), [0, 0.5, 1])
        np.testing.assert_array_equal(line.get_ydata(), found["mean"].isel(level=number))
