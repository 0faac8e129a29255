"""Several lenses of one probe: each reads what it reads alone, along the dim `lens`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from commands import command, engine, ran
from facts import facts
from small_study import small_spec

import store
from engine.planning.estimate import estimate
from engine.planning.plan import make_plan
from specs import SpecError, load_spec, resolve
from store import plots
from store.analysis.nodes import first_lens, with_cell_index
from store.errors import StoreError
from store.report.collect import collect

PROBE = """
[probe]
examples = 5
positions = ["prompt_end", "completion_end"]
activation = true
statistics = ["logsumexp", "entropy", "max_prob", "kl_final", "watch_mass", "renyi_2"]
lens = {lens}
[probe.tuned]
steps = 6
tokens = 40
"""
LENSES = '["tuned", "logit"]'
ONE = ("--only", "seed=0")


def spec_of(folder: Path, model: Path, data: Path, lens: str, name: str = "small", **more: Any) -> Path:
    return small_spec(folder, model, data, PROBE.format(lens=lens), name=name, **more)


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rated_file: Path) -> Path:
    """A store of one study read through both lenses, and through each alone."""
    folder = tmp_path_factory.mktemp("lenses")
    done = []
    for name, lens in (("both", LENSES), ("tuned", '"tuned"'), ("logit", '["logit"]')):
        spec = spec_of(folder, tiny_model, rated_file, lens, name, train="steps = 6\nlr = 0.05")
        done.append(ran(engine("execute", spec).output))
    assert done[0]["lens"] == done[0]["train"] == 4
    assert done[1] == done[2] == {"probe": 4}  # translators are shared, passes are not
    return folder / "store"


def node(root: Path, name: str) -> xr.Dataset:
    return store.open_store(root)[f"{name}/probe"].to_dataset()


def test_each_lens_reads_what_it_reads_alone_to_the_bit(probed: Path) -> None:
    both = node(probed, "both")
    assert both["lens"].values.tolist() == ["tuned", "logit"] and both.attrs["lens"] == "tuned, logit"
    for name in ("tuned", "logit"):
        alone, of_lens = node(probed, name), both.sel(lens=name)
        assert "lens" not in alone.dims and alone.attrs["lens"] == name
        assert set(alone.data_vars) == set(both.data_vars)
        for variable in set(alone.data_vars) - {"nonfinite"}:
            xr.testing.assert_equal(alone[variable], of_lens[variable].drop_vars("lens", errors="ignore"))
    assert not (
        both["kl_final"].sel(lens="tuned", layer=1) == both["kl_final"].sel(lens="logit", layer=1)
    ).any()


def test_what_no_lens_has_a_part_in_is_there_once(probed: Path) -> None:
    both = node(probed, "both")
    assert both["activation_entropy"].dims == ("cell", "example", "layer", "position")
    assert both["entropy"].dims == ("cell", "example", "layer", "position", "lens")
    assert both["watch_rank"].dims == (*both["entropy"].dims, "watch")
    assert both["nonfinite"].dims == ("cell", "example") and not both["nonfinite"].any()


def test_analyses_carry_the_lens_and_contrasts_read_the_first(probed: Path) -> None:
    study = store.open_store(probed)["both"].ablation
    alone = store.open_store(probed)["tuned"].ablation
    changed = study.change("entropy", "target", "label")
    expected = alone.change("entropy", "target", "label")["difference"]
    np.testing.assert_array_equal(changed["difference"].sel(lens="tuned"), expected)
    for found in (
        study.means("label_surprisal"),
        study.rank_trajectory(),
        study.saturation(threshold=0.001, permutations=2),
        study.layer_specialisation("target", "entropy", permutations=2),
    ):
        assert found["lens"].values.tolist() == ["tuned", "logit"]
    declared = study.contrasts()["target/entropy"].to_dataset()
    xr.testing.assert_equal(declared["p_adjusted"], alone.contrasts()["target/entropy"]["p_adjusted"])


def shares(probe: xr.Dataset, one: str, other: str, measure: str) -> np.ndarray:
    """Agreement of two lenses by its definition, of each example, layer and position of each cell."""
    ids = {lens: probe["top_id"].sel(lens=lens).values for lens in (one, other)}
    found = np.empty(ids[one].shape[:-1])
    for place in np.ndindex(*found.shape):
        left, right = (ids[lens][place].tolist() for lens in (one, other))
        both = len({*left} & {*right}) / len(left)
        found[place] = both if measure == "overlap" else float(left[0] == right[0])
    return found


@pytest.mark.parametrize("measure", ["top", "overlap"])
def test_agreement_is_the_mean_over_examples_and_cells(probed: Path, measure: str) -> None:
    probe, study = node(probed, "both"), store.open_store(probed)["both"].ablation
    found = study.lens_agreement(measure, "target")
    assert found["mean"].dims == ("level", "layer", "position", "lens")
    assert found["lens"].values.tolist() == ["logit"]  # the other than the first
    for level in ("label", "label+explanation"):
        cells = probe.isel(cell=np.flatnonzero(probe["target"] == level))
        truth = shares(cells, "tuned", "logit", measure).mean(axis=(0, 1))
        one = found.sel(level=level, lens="logit")
        np.testing.assert_allclose(one["mean"], truth, rtol=1e-12)
        known = one["low"].notnull()  # where examples differ
        inside = (one["low"] <= one["mean"] + 1e-12) & (one["mean"] <= one["high"] + 1e-12)
        assert known.any() and inside.where(known, True).all()
    assert (found["mean"].sel(layer=3) == 1).all() and (found["mean"] < 1).any()
    assert found["mean"].attrs["units"] == "1" and "tuned lens" in found.attrs["method"]
    turned = study.lens_agreement(measure, "target", reference="logit")
    assert turned["lens"].values.tolist() == ["tuned"]
    np.testing.assert_allclose(turned["mean"].values, found["mean"].values)
    axes = plots.lens_agreement(found.sel(level="label", position="prompt_end"))
    assert len(axes.lines) == 1


def test_rows_that_a_lens_cannot_read_agree_with_nothing(probed: Path) -> None:
    probe = node(probed, "both").load()
    lost = probe["top_id"].where((probe["layer"] != 0) | (probe["lens"] != "logit"), -1)
    found = probe.assign(top_id=lost).ablation.lens_agreement()
    assert found["mean"].sel(layer=0).isnull().all() and found["mean"].sel(layer=[1, 2, 3]).notnull().all()


def test_agreement_needs_several_lenses(probed: Path) -> None:
    tree = store.open_store(probed)
    with pytest.raises(StoreError, match=facts("several lenses", "probe.lens", "probe.top_k")):
        tree["logit"].ablation.lens_agreement()
    with pytest.raises(StoreError, match=facts("reference", "'jacobian'", "tuned", "logit")):
        tree["both"].ablation.lens_agreement(reference="jacobian")
    with pytest.raises(StoreError, match=facts("measure", "'kl'", '"top"', '"overlap"')):
        tree["both"].ablation.lens_agreement("kl")


def test_reports_figures_and_examples_read_the_first_lens(probed: Path, tmp_path: Path) -> None:
    reported = {part["name"]: part for part in collect(probed)["experiments"]}
    curves = {name: part["layers"]["curves"] for name, part in reported.items()}
    found, alone = (
        {(c["statistic"], c["condition"], c["position"]): c["mean"] for c in curves[name]}
        for name in ("both", "tuned")
    )
    assert {key: found[key] for key in alone} == alone
    other = {(f"{name}: logit lens", *rest) for name, *rest in alone if name != "activation_entropy"}
    agreed = {key for key in found if key[0].startswith("lens agreement")}
    assert found.keys() - alone.keys() == other | agreed
    assert {name for name, *_ in agreed} == {f"lens agreement, {m}: logit lens" for m in ("top", "overlap")}
    assert reported["both"]["samples"]["shapes"][0]["arrays"].keys() >= {"entropy", "top_logprob"}
    assert reported["both"]["contrasts"]["rows"] == reported["tuned"]["contrasts"]["rows"]
    assert "figure: " in engine("results", probed, "--experiment", "both").output
    shown = [
        engine("show", probed, "--experiment", name, "--cell", "target=label,seed=0").output
        for name in ("both", "tuned")
    ]
    assert shown[0] == shown[1]


def test_a_selected_factor_is_no_lens_dim_and_a_lens_dim_no_factor(probed: Path) -> None:
    of_one = node(probed, "both").sel(target="label", seed=0)
    assert with_cell_index(of_one).sizes["lens"] == 2
    factor = xr.Dataset({"entropy": ("lens", [1.0, 2.0])}, {"lens": ["logit", "tuned"]})
    assert with_cell_index(factor).indexes["cell"].names == ["lens"]
    assert "lens" not in first_lens(of_one).dims and first_lens(factor.rename(lens="x")).sizes["x"] == 2


def test_a_list_of_one_is_the_lens_itself(tmp_path: Path, tiny_model: Path, rated_file: Path) -> None:
    keys = []
    for lens in ('"tuned"', '["tuned"]', '["tuned", "logit"]', '["logit", "tuned"]'):
        matrix = resolve(load_spec(spec_of(tmp_path, tiny_model, rated_file, lens)))
        keys.append(make_plan(matrix).cells[0].keys)
    assert keys[0] == keys[1]
    assert len({key["lens"] for key in keys}) == 1 and len({key["probe"] for key in keys}) == 3


def test_the_plan_counts_every_lens(tmp_path: Path, tiny_model: Path, rated_file: Path) -> None:
    costs = []
    for lens in ('"logit"', LENSES):
        plan = make_plan(resolve(load_spec(spec_of(tmp_path, tiny_model, rated_file, lens))))
        found = estimate(plan)
        assert found is not None
        costs.append(found["probe"])
    assert 1.5 * costs[0].stored < costs[1].stored < 2 * costs[0].stored
    assert costs[0].flops < costs[1].flops and costs[0].tokens == costs[1].tokens


FACTOR = """
[factors.lens]
path = "lora.r"
values = [2, 4]
"""


@pytest.mark.parametrize(
    ("lens", "more", "key", "words"),
    [
        ('["logit", "logit"]', "", "probe.lens[1]", ["logit", "twice"]),
        ("[]", "", "probe.lens", ["non-empty list", "found an empty list"]),
        (LENSES, FACTOR, "factors.lens", ["probe.lens", "another"]),
        (LENSES, 'against = ["base"]', "probe.lens", ["probe.against", '"logit"', '"tuned"']),
        (LENSES, "at = [1.0]", "probe.lens", ["probe.at", '"logit"', "tuned"]),
        ('"tunde"', "", "probe.lens", ["tuned"]),
    ],
)
def test_lenses_that_cannot_be_read_together_are_named(
    tmp_path: Path, tiny_model: Path, rated_file: Path, lens: str, more: str, key: str, words: list[str]
) -> None:
    spec = spec_of(tmp_path, tiny_model, rated_file, lens)
    text = spec.read_text()
    inside = text.replace("[probe]\n", f"[probe]\n{more}\n", 1)
    spec.write_text(text + more if more == FACTOR else inside)
    with pytest.raises(SpecError) as caught:
        resolve(load_spec(spec))
    assert key in {problem.key for problem in caught.value.problems}
    assert all(word in str(caught.value) for word in words)


def test_a_factor_over_single_lenses_may_have_the_name(write_spec) -> None:
    assert command("plan", write_spec('[factors.lens]\npath = "probe.lens"\nvalues = ["logit", "tuned"]\n'))
