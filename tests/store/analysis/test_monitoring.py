"""Levels of looks at a growing number of seeds: that they hold together, and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from analysis_data import agreed, at_most, crossed, probe
from commands import engine
from facts import facts, told
from report_store import Design, write_synthetic
from scipy import stats

from benchmarks.looks import ever
from store import StoreError
from store.analysis import change, effects
from store.analysis.monitoring import Monitoring
from store.report.collect import collect

LOOKS = (3, 4, 5, 6, 7, 8, 9, 10)


def p_values(studies: int, seeds: range) -> np.ndarray:
    """Draw the p values of t tests of growing samples [number of seeds, study]."""
    x = np.random.default_rng(0).normal(size=(max(seeds), studies))
    return np.stack([stats.ttest_1samp(x[:n], 0).pvalue for n in seeds])


@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize("looks", [(3, 5, 10), LOOKS, (2, 6)])
def test_declared_looks_spend_the_whole_error_rate(looks: tuple[int, ...], alpha: float) -> None:
    p = p_values(20_000, range(2, 11))
    seeds = np.broadcast_to(np.arange(2, 11)[:, None], p.shape)
    found = Monitoring.of(looks).p(p, seeds)
    assert np.array_equal(np.isfinite(found).all(axis=1), np.isin(np.arange(2, 11), looks))
    assert agreed(np.nanmin(found, axis=0) < alpha, alpha)


def test_looks_at_any_time_hold_at_whatever_number_they_end() -> None:
    p = p_values(20_000, range(2, 41))
    seeds = np.broadcast_to(np.arange(2, 41)[:, None], p.shape)
    found = Monitoring.of("anytime").p(p, seeds) < 0.05
    assert at_most(found.any(axis=0), 0.05) and found.any(axis=0).mean() > 0.03


def test_single_looks_are_as_they_were_and_levels_turn_p_values_round() -> None:
    seeds = np.array([2, 3, 5, 10])
    assert Monitoring().level(0.05, seeds) == 0.05
    for looks in ((2, 3, 5, 10), "anytime"):
        own = Monitoring.of(looks)
        for alpha in (0.5, 0.05, 1e-4, 1e-15):
            level = own.level(alpha, seeds)
            np.testing.assert_allclose(own.p(level, seeds), alpha, rtol=1e-9)
            assert (level < alpha).all() and (np.diff(own.level([alpha] * 4, seeds)) != 0).all()
    rare = Monitoring.of((5, 10)).level(
        1e-9, np.array([5, 10])
    )  # looks that hardly ever pass share by Bonferroni
    np.testing.assert_allclose(rare, [0.25e-9, 0.75e-9], rtol=0.01)
    for wrong in ([], [1, 3], [5, 3], [3, 3], "often"):
        with pytest.raises(StoreError, match=facts('"anytime"')):
            Monitoring.of(wrong)


def test_intervals_leave_out_0_just_where_p_is_below_and_say_over_what() -> None:
    data = probe(
        crossed(np.random.default_rng(1), (2, 5, 20, 8, 3), 0.3) + np.array([0, 1.5]).reshape(2, 1, 1, 1, 1)
    )
    once = change(data, "entropy", "target")
    for looks, words in (
        ([3, 5, 10], "hold over the looks at 3, 5 and 10 seeds together (alpha spending)"),
        ("anytime", "hold at every number of seeds from 2 on together"),
    ):
        found = change(data, "entropy", "target", looks=looks)
        assert words in found.attrs["method"]
        out = (found["low"] > 0) | (found["high"] < 0)
        assert (out == (found["p_value"] < 0.05)).all() and 0 < out.mean() < 1
        assert (found["low"] < once["low"]).all() and (found["p_adjusted"] >= once["p_adjusted"]).all()
        beyond = (found["simultaneous_low"] > 0) | (found["simultaneous_high"] < 0)
        assert (beyond == (found["p_adjusted"] < 0.05)).all()
    other = change(data, "entropy", "target", looks=[3, 10])
    assert told(other.attrs["method"], "5 seeds", "no look")
    assert np.isnan(other["p_value"]).all() and np.isnan(other["low"]).all()
    assert np.isfinite(other["difference"]).all()
    terms = effects(data, "entropy", ["target"], looks="anytime")
    np.testing.assert_allclose(terms["p_value"].isel(term=1), found["p_value"].isel(level=0))


@pytest.mark.parametrize(
    "kind", ["seeds dominate", "8 groups of examples", "t with 5 df, seeds of unlike spread"]
)
@pytest.mark.parametrize("design", ["spending, 3 to 10", "anytime, 2 to 10"])
def test_a_null_is_rejected_at_no_look(kind: str, design: str) -> None:
    alone, any_ = ever(kind, design, 40)
    assert at_most(np.arange(800) < 800 * alone, 0.05, slack=0.02)
    assert at_most(np.arange(40) < 40 * any_, 0.06)


def test_results_and_report_name_looks_and_what_is_confirmatory(tmp_path: Path) -> None:
    def design(seeds: int, monitoring: str = "fixed", pending: Sequence[int] = ()) -> Design:
        analysis = {"primary": "correct", "family": "outcome", "monitoring": monitoring}
        return Design(
            {"target": ["label", "explained"]},
            contrasts=[{"factor": "target", "baseline": "label"}],
            seeds=range(seeds),
            analysis=analysis,
            examples=8,
            layers=3,
            pending=pending,
        )

    root = tmp_path / "store"
    write_synthetic(root, design(2, pending=range(4)))
    write_synthetic(root, design(2))
    shown = " ".join(engine("results", root).output.split())
    assert "confirmatory" in shown and "Monitoring: fixed." in shown and "looked at with" not in shown
    assert told(shown, "Confirmatory") and "Not finished" not in shown
    write_synthetic(root, design(3))
    engine("report", root, "-o", tmp_path / "report.html")
    found = collect(root)["experiments"][0]["contrasts"]
    assert any(told(note, "target", "2 seeds", "5 %") for note in found["notes"])
    (row,) = found["rows"]
    assert row["outcomes"]["correct"]["standing"] == "confirmatory"
    by_layer = row["layers"]["entropy"]
    assert by_layer["standing"] == row["outcomes"]["absolute_error"]["standing"] == "exploratory"
    assert told(by_layer["corrected"], "Holm", "3 layers and 2 positions", "target")
    write_synthetic(root, design(3, monitoring="anytime"))
    found = collect(root)["experiments"][0]["contrasts"]
    assert any("Monitoring: anytime." in note for note in found["notes"])
    assert any("monitoring fixed → anytime" in note for note in found["notes"])
    assert found["rows"][0]["outcomes"]["correct"]["standing"] == "exploratory"
    write_synthetic(tmp_path / "running", design(3, pending=[4]))
    note = "Not finished: 1 of 6 cells lacks results, so all numbers may change."
    assert collect(tmp_path / "running")["experiments"][0]["contrasts"]["notes"][0].startswith(note)
    assert note in " ".join(engine("results", tmp_path / "running").output.split())
