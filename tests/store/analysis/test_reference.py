"""The analyses agree with scipy, statsmodels and scikit-learn where these have the same method."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from analysis_data import cells, crossed, probe
from facts import facts, told
from scipy import stats
from sklearn.metrics import mutual_info_score, roc_auc_score
from statsmodels.duration.survfunc import SurvfuncRight, survdiff
from statsmodels.stats.multitest import multipletests

from store.analysis import change, clusters, effect_sizes, effects, layer_specialisation, variance_by_interval
from store.analysis.components import Components
from store.analysis.inference import infer
from store.analysis.multiplicity import adjust
from store.analysis.permutation import sign_flip_p
from store.analysis.proportions import share_bounds
from store.analysis.ratios import ratio_interval
from store.analysis.survival import kaplan_meier, log_rank, saturation_layer
from store.analysis.widths import moments, plain_widths
from store.errors import StoreError


def test_one_seed_is_a_paired_t_test() -> None:
    values = crossed(np.random.default_rng(0), (2, 1, 12, 3, 1))
    found = change(probe(values), "entropy", "target").isel(level=0, position=0)
    expected = stats.ttest_rel(values[1, 0, ..., 0], values[0, 0, ..., 0])
    assert np.allclose(found["p_value"], expected.pvalue)


@pytest.mark.parametrize("seeds", [1, 4])
@pytest.mark.parametrize("turned", [1, -1])
def test_skewed_values_have_halls_interval(seeds: int, turned: int) -> None:
    rng = np.random.default_rng(3)
    by_example = turned * (rng.exponential(size=(1, 50, 300)) - 1)
    values = by_example + 0.01 * rng.normal(size=(seeds, 50, 300))
    found = infer(values)
    x = values.mean(axis=0)
    t, skewed = stats.ttest_1samp(x, 0).statistic, stats.skew(x)
    a = np.sign(skewed) * np.maximum(abs(skewed) - np.sqrt(6 / 50), 0) / np.sqrt(50)
    hall = t + a * t**2 / 3 + a**2 * t**3 / 27 + a / 6
    distance = np.where(t > 0, np.minimum(hall, t), -np.maximum(hall, t))
    expected = 2 * stats.t.sf(np.maximum(distance, 0), 49)
    np.testing.assert_allclose(found.p, expected, rtol=0.05)  # skewness, up to n / (n − 1)
    plain = t_test(values)
    assert (found.p >= plain - 1e-12).all() and (found.p > 1.05 * plain).mean() > 0.3
    far, near = (found.high, found.low)[::turned]
    assert (abs(far - found.mean) > 1.02 * abs(near - found.mean)).mean() > 0.9
    assert np.array_equal((found.low > 0) | (found.high < 0), found.p < 0.05)


def test_the_two_way_variance_is_that_of_the_mixed_model() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(6, 1)) + rng.normal(size=(1, 15)) + rng.normal(size=(6, 15))
    long = pd.DataFrame([(s, e, v) for (s, e), v in np.ndenumerate(values)], columns=["s", "e", "y"])
    parts = {"seed": "0 + C(s)", "example": "0 + C(e)"}
    model = smf.mixedlm("y ~ 1", long.assign(all=1), groups="all", re_formula="0", vc_formula=parts)
    fitted = model.fit(reml=True)
    found = Components.of(values)
    assert fitted.fe_params["Intercept"] == pytest.approx(float(found.mean))
    variance = plain_widths(found.variances, found.seeds, found.df_examples).variances[0]
    assert fitted.bse["Intercept"] == pytest.approx(float(np.sqrt(variance)), rel=1e-3)


def fieller(part: list[float], whole: list[float]) -> tuple[float, float]:
    """Give Fieller's 95 % bounds of a ratio of means of paired draws: the roots of a quadratic in it."""
    n = len(part)
    p, w = sum(part) / n, sum(whole) / n
    variance = n * (n - 1) / stats.t.ppf(0.975, n - 1) ** 2
    pp, pw, ww = (
        sum((a - x) * (b - y) for a, b in zip(of, other, strict=True)) / variance
        for of, x, other, y in ((part, p, part, p), (part, p, whole, w), (whole, w, whole, w))
    )
    a, b, c = w * w - ww, p * w - pw, p * p - pp  # a r² − 2 b r + c ≤ 0
    return (b - (b * b - a * c) ** 0.5) / a, (b + (b * b - a * c) ** 0.5) / a


@pytest.mark.parametrize("seeds", [1, 2, 3, 6])
def test_ratios_have_fiellers_interval(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    rest = rng.normal(size=(2, seeds, 9))
    if seeds == 1:
        part, whole = rest + np.array([1, 9]).reshape(2, 1, 1)
        draws = part[0], whole[0]  # its examples
    else:  # examples have no effects of their own, so the seeds' means are the draws
        rest -= rest.mean(axis=1, keepdims=True)
        part, whole = rest + np.array([10, 90]).reshape(2, 1, 1) + 2 * rng.normal(size=(2, seeds, 1))
        draws = part.mean(axis=1), whole.mean(axis=1)
    low, high = ratio_interval(part, whole)
    assert (low, high) == pytest.approx(fieller(*(own.tolist() for own in draws)), rel=1e-9)


def t_test(values: np.ndarray) -> np.ndarray:
    """Give the p values of the t intervals of means, without a correction for skewness."""
    found = Components.of(values)
    return plain_widths(found.variances, found.seeds, found.df_examples).p(found.mean)


def test_the_bounds_of_a_ratio_are_where_the_test_of_the_remainder_rejects() -> None:
    rng = np.random.default_rng(7)
    shared = rng.normal(size=(3, 1, 400)) + rng.normal(size=(1, 20, 400)) + rng.normal(size=(3, 20, 400))
    part, whole = 1 + shared + rng.normal(size=shared.shape), 2 + shared
    low, high = ratio_interval(part, whole, confidence=0.9)
    bounded = np.isfinite(low)
    assert np.array_equal(bounded, t_test(whole) < 0.1) and 100 < bounded.sum() < 400
    step = 1e-6 * np.where(bounded, high - low, 0)
    for bound, inwards in ((low, step), (high, -step)):
        inside, outside = (
            t_test(part - np.where(bounded, own, 0) * whole)[bounded]
            for own in (bound + inwards, bound - inwards)
        )
        assert (inside >= 0.1).all() and (outside < 0.1).all()
    assert (low[~bounded] == -np.inf).all() and (high[~bounded] == np.inf).all()
    # Degrees of freedom jump with the ratio, so the accepted ones may have gaps; none may lie outside.
    ratios = np.linspace(-4, 4, 401)
    accepted = np.array([t_test(part - ratio * whole) >= 0.1 for ratio in ratios])
    assert ((low <= ratios[:, None]) & (ratios[:, None] <= high))[accepted].all()
    # What goes with all of the whole is all of it, whatever the draws; a single example says nothing.
    assert [bound[0] for bound in ratio_interval(whole[..., bounded], whole[..., bounded])] == [1, 1]
    assert np.isnan(ratio_interval(part[:, :1], whole[:, :1])).all()


def test_effects_are_the_coefficients_of_effect_coding() -> None:
    values = crossed(np.random.default_rng(2), (6, 2, 7, 1, 1)).reshape(2, 3, 2, 7, 1, 1)
    factors = {"a": ["a0", "a1"], "b": ["b0", "b1", "b2"]}
    found = effects(
        cells(values, "entropy", factors, ("example", "layer", "position")), "entropy", ["a", "b"]
    )
    rows = [(i, j, v) for (i, j, *_), v in np.ndenumerate(values)]
    long = pd.DataFrame(rows, columns=["i", "j", "y"])
    long["a"] = np.where(long["i"] == 1, 0.5, -0.5)
    for level in (1, 2):
        long[f"b{level}"] = (long["j"] == level) - 1 / 3
    fitted = smf.ols("y ~ a * (b1 + b2)", long).fit().params
    names = {"mean": "Intercept", "a[a1]": "a", "b[b1]": "b1", "b[b2]": "b2"}
    names |= {"a[a1] × b[b1]": "a:b1", "a[a1] × b[b2]": "a:b2"}
    effect = found["effect"].squeeze().to_series()
    assert effect.to_dict() == pytest.approx({term: fitted[name] for term, name in names.items()})
    assert found["order"].values.tolist() == [0, 1, 1, 1, 2, 2]


def test_sign_flips_are_scipys_permutation_test() -> None:
    values = np.random.default_rng(3).normal(0.4, size=(9, 4))
    expected = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert np.allclose(sign_flip_p(values), expected.pvalue)


def test_survival_is_that_of_statsmodels() -> None:
    rng = np.random.default_rng(4)
    times = rng.integers(0, 12, size=(2, 40)).astype(float)
    layers = np.arange(9.0)
    times[times > 8] = np.inf
    last = np.where(np.isinf(times), 8.5, times)
    function = SurvfuncRight(last[0], np.isfinite(times[0]).astype(int))
    expected = [function.surv_prob[function.surv_times <= layer][-1] for layer in layers]
    assert np.allclose(kaplan_meier(times[0], layers), expected)
    chi2, _ = survdiff(last.ravel(), np.isfinite(times).ravel().astype(int), np.repeat([0, 1], 40))
    found, _ = log_rank(times[0][None], times[1][None], layers, paired=False, permutations=1)
    assert float(found) == pytest.approx(chi2)


def test_saturation_is_the_layer_from_which_on() -> None:
    rows = {
        0.0: [0.96, 0.97, 0.99], 2.0: [0.99, 0.2, 0.96], np.inf: [0.99, 0.99, 0.94], 1.0: [0.1, 0.95, 0.95],
    }  # fmt: skip
    data = probe(np.array(list(rows.values()))[None, None, ..., None], ["a"], "max_prob")["max_prob"]
    assert saturation_layer(data).values.ravel().tolist() == list(rows)
    data[0, 0, 1] = np.nan
    assert np.isnan(saturation_layer(data).values.ravel()[0])


def test_separation_is_scikit_learns() -> None:
    values = crossed(np.random.default_rng(5), (3, 1, 16, 2, 1))
    found = layer_specialisation(probe(values, ["a", "b", "c"]), "target", bins=4, permutations=9)
    levels = np.repeat([0, 1, 2], 16)
    for layer in (0, 1):
        flat = values[:, 0, :, layer, 0].ravel()
        for number, level in enumerate("abc"):
            auc = found["auc"].sel(level=level, layer=layer).item()
            assert auc == pytest.approx(roc_auc_score(levels == number, flat))
        bins = np.digitize(flat, np.quantile(flat, [0.25, 0.5, 0.75]), right=True)
        expected = mutual_info_score(levels, bins)
        assert found["mutual_information"].sel(layer=layer).item() == pytest.approx(expected, rel=1e-5)


def test_corrections_are_those_of_statsmodels_and_leave_out_what_is_missing() -> None:
    p = np.random.default_rng(6).random((5, 30)) ** 3
    p[2, [0, 7]] = np.nan
    for correction, name in (("holm", "holm"), ("benjamini-hochberg", "fdr_bh")):
        found = adjust(p, 1, correction)
        for own, row in zip(found, p, strict=True):
            there = ~np.isnan(row)
            assert np.isnan(own[~there]).all()
            assert np.allclose(own[there], multipletests(row[there], method=name)[1])


def test_effect_sizes_are_as_defined() -> None:
    a, b = np.array([1.0, 2, 3, 6]), np.array([0.0, 2, 2, 5])
    found = effect_sizes(probe(np.stack([b, a])[:, None, :, None, None]), "entropy", "target").squeeze()
    assert found["d_z"].item() == pytest.approx((a - b).mean() / (a - b).std(ddof=1))
    assert found["cliffs_delta"].item() == pytest.approx(np.sign(a[:, None] - b).mean())
    right = np.array([[1.0, 1, 0, 0], [1, 1, 1, 0]])[:, None, :, None, None]
    odds = effect_sizes(probe(right), "entropy", "target")["odds_ratio"].item()
    assert odds == pytest.approx((3.5 / 1.5) / (2.5 / 2.5))


def test_clusters_are_runs_of_one_sign() -> None:
    rng = np.random.default_rng(7)
    values = 0.1 * rng.normal(size=(2, 1, 10, 8, 1))
    values[1] += np.array([0, 1, 1, -1, -1, 0, 0, 1.0])[:, None]
    found = clusters(probe(values), "entropy", "target", permutations=199).squeeze()
    assert found["cluster"].values[[1, 2, 3, 4, 7]].tolist() == [1, 1, 2, 2, 3]
    outside = found["cluster"].values == 0
    assert np.isnan(found["p_value"].values[outside]).all() and outside[[5, 6]].all()


def test_shares_of_none_and_all_have_intervals() -> None:
    low, high = share_bounds(Components.of(np.zeros((1, 20, 1))), 0.95)
    assert low == pytest.approx(0) and 0.1 < float(high[0]) < 0.3


def test_one_error_gives_one_interval_wherever_it_is() -> None:
    """Its variances by seeds, by examples and by the rest are equal, but for rounding."""
    found = set()
    for seed, example in np.ndindex(5, 60):
        values = np.ones((5, 60, 2))
        values[seed, example, 0] = 0
        bounds = np.stack(share_bounds(Components.of(values), 0.95))
        change = infer(values - 1, share=True)
        found.add(tuple(np.concatenate([bounds.ravel(), change.low, change.high]).round(9)))
    assert len(found) == 1


def test_a_share_that_no_example_changes_has_an_interval_all_the_same() -> None:
    guess = np.full((2, 3, 8), "1", object)
    data = cells(guess, "prediction", {"target": ["a", "b"]}, ("example",))
    data = data.assign_coords(gold=("example", np.array(list("11112222"), object)))
    found = change(data, "correct", "target").squeeze()
    assert found["difference"].item() == 0 and found["p_value"].item() == 1
    assert found["low"].item() == pytest.approx(-found["high"].item(), rel=1e-9)
    assert 0.1 < found["high"].item() < 1


def test_variances_of_nothing_are_not_compared() -> None:
    found = variance_by_interval(
        probe(np.zeros((2, 1, 10, 3, 1))), "entropy", (0, 2), by="target", paired=False
    )
    assert all(np.isnan(found[name]).all() for name in ("variance_ratio", "levene", "fligner_killeen"))
    assert (found["examples"] == 10).all()


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_order_of_seeds_changes_no_p_value(seeds: int) -> None:
    """Layers that move together, some up and some down, as they do in no order along the layers."""
    rng = np.random.default_rng(5)
    values = crossed(rng, (2, seeds, 40, 30, 1), 0.5, 1, 1)
    values += 0.8 * rng.standard_normal((2, seeds, 1, 1, 1)) * rng.standard_normal((30, 1))
    turned = values[:, np.roll(np.arange(seeds), 1)]
    found, expected = (change(probe(some), "entropy", "target") for some in (turned, values))
    for name in ("p_value", "p_adjusted", "low", "high", "simultaneous_low", "simultaneous_high"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, err_msg=name)


def test_the_number_of_independent_layers_is_that_of_normal_seeds() -> None:
    """Its two parts are unbiased: (tr Σ)² and tr Σ² of correlated layers."""
    rng = np.random.default_rng(6)
    root = np.linalg.cholesky(0.8 ** np.abs(np.subtract.outer(np.arange(12), np.arange(12))))
    for seeds in (3, 6):
        draws = rng.standard_normal((20_000, seeds, 12)) @ root.T
        draws -= draws.mean(axis=1, keepdims=True)
        parts = np.mean([moments(one.T @ one, seeds - 1) for one in draws], axis=0)
        np.testing.assert_allclose(parts, [12.0**2, ((root @ root.T) ** 2).sum()], rtol=0.03)


@pytest.mark.parametrize("confidence", [2, 0, 1, -1, float("nan")])
def test_a_confidence_that_is_no_share_is_refused(confidence: float) -> None:
    values = crossed(np.random.default_rng(0), (2, 2, 12, 3, 1))
    with pytest.raises(StoreError, match=facts("confidence", "between 0 and 1")):
        change(probe(values), "entropy", "target", confidence=confidence)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_seed_that_diverged_is_told(value: float) -> None:
    values = crossed(np.random.default_rng(0), (2, 3, 12, 3, 1))
    assert "diverged" not in change(probe(values), "entropy", "target").attrs["method"]
    values[1, 0] = value
    found = change(probe(values), "entropy", "target")
    assert found["seeds"].item() == 2
    assert told(found.attrs["method"], "1 seed", "finite")


def test_what_rounding_leaves_of_no_difference_is_none() -> None:
    values = (
        np.random.default_rng(0).permutation(np.repeat([0.1, -0.1, 0.3, -0.3, 0.0], 12)).reshape(3, 20, 1)
    )
    assert Components.of(values).mean.item() == 0
