"""What a plan says of its power, what other designs would find and cost, and what is wrong with asking."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import engine
from facts import told

from store.analysis.power import Design, Variation, corrected, pointwise

CONTRAST = '[[contrasts]]\nfactor = "target"\nbaseline = "label"\n'
INTEREST = "[analysis]\nsmallest_difference_of_interest = { correct = 0.1 }\n"
ASSUMED = "[analysis.assumed.correct]\nseed = 0.02\nexample = 0.3\ndiscordant = 0.2\n"


def planned(spec: Path, *arguments: object) -> list[dict[str, Any]]:
    return json.loads(engine("plan", spec, "--json", *arguments).output)["power"]


def curve(spec: Path, *arguments: object) -> dict[str, Any]:
    return json.loads(engine("power", spec, "--json", *arguments).output)


def test_a_plan_says_what_it_would_find(write_spec) -> None:
    correct, entropy = planned(write_spec(CONTRAST + ASSUMED))
    assert (correct["contrast"], correct["levels"], correct["baseline"]) == (
        "target", ["label+explanation"], "label",
    )  # fmt: skip
    assert [correct[name] for name in ("outcome", "seeds", "examples", "pairs")] == ["correct", 2, 6, 1]
    variation = Variation(**correct["variances"])
    assert (variation.seed, variation.example, variation.discordant) == (0.02, 0.3, 0.2)
    assert variation.rest**2 == pytest.approx(0.2 - 0.02**2 - 0.3**2)
    expected = pointwise(Design(2, 6), variation).detectable()
    assert correct["detectable"] == (expected if expected < 1e9 else None)
    assert correct["source"] == "assumed ([analysis.assumed], docs/power.md)"
    assert entropy["outcome"] == "entropy" and entropy["layers"] == 4
    design, own = Design(2, 6, layers=4, tests=4), Variation(**entropy["variances"])
    assert entropy["detectable"] == pytest.approx(corrected(design, own).detectable())
    assert entropy["detectable_alone"] == pytest.approx(pointwise(design, own).detectable())
    text = engine("plan", write_spec(CONTRAST)).output
    assert told(text, "80% power") and "6 examples" in text
    assert "assumed (docs/power.md)" in text and told(text, "Two seeds", "single layer")
    text = engine("plan", write_spec(CONTRAST), "--set", "seeds=[0]").output
    assert told(text, "One seed")


THREE_LEVELS = """[factors.target.levels]
"label+random_tokens" = { target.content = "label+random_tokens" }
"""
TWO_CONTRASTS = """
[[contrasts]]
factor = "target"
baseline = "label"
levels = ["label+random_tokens"]
[[contrasts]]
factor = "target"
baseline = "label+explanation"
"""


@pytest.mark.parametrize("family", ["contrast", "outcome"])
def test_contrasts_of_one_factor_are_told_apart_by_their_baselines(write_spec, family: str) -> None:
    """As the results tell them apart: p values are corrected over the tests of each, and so is power."""
    spec = write_spec(ASSUMED + f'[analysis]\nfamily = "{family}"\nprimary = "correct"\n')
    spec.write_text(spec.read_text().replace("[factors.target.levels]\n", THREE_LEVELS) + TWO_CONTRASTS)
    rows = planned(spec)
    assert [(row["baseline"], row["levels"], row["test_sets"]) for row in rows] == [
        ("label", ["label+random_tokens"], 1),
        ("label+explanation", ["label+random_tokens", "label"], 1),
    ]
    assert [row["tests"] for row in rows] == ([1, 2] if family == "contrast" else [3, 3])
    tests = curve(spec, "--contrast", "target against label+explanation")["tests"], curve(spec)["tests"]
    assert tests == ((2, 1) if family == "contrast" else (3, 3))
    output = engine("power", spec, "--contrast", "target against nothing", code=2).output
    assert told(output, "found target against label, target against label+explanation there")


def test_a_smallest_difference_that_would_be_missed_is_a_warning(write_spec) -> None:
    (row,) = planned(write_spec(CONTRAST + INTEREST))
    assert row["difference_of_interest"] == 0.1 and row["power"] < 0.3
    text = engine("plan", write_spec(CONTRAST + INTEREST)).output
    assert told(text, "warning", "target", "label+explanation", "label", "10 points", "correct")
    assert "warning" not in engine("plan", write_spec(CONTRAST), "--set", "seeds=[0, 1, 2]").output


def test_power_is_told_of_the_looks_that_are_declared(write_spec) -> None:
    looks = '[analysis]\nmonitoring = "spending"\nlooks = [2, 4]\n'
    once, row = (planned(write_spec(CONTRAST + own), "--set", "seeds=[0, 1, 2, 3]")[1] for own in ("", looks))
    assert row["looks"] == [2, 4] and once["looks"] is None and row["detectable"] > once["detectable"]
    design = Design(4, 6, layers=4, tests=4, looks=(2, 4))
    assert row["detectable"] == pytest.approx(corrected(design, Variation(**row["variances"])).detectable())
    text = engine("plan", write_spec(CONTRAST + looks)).output.replace("\n", " ")
    assert told(text, "2 and 4 seeds", "2 seeds")
    found = curve(write_spec(CONTRAST + looks), "--outcome", "entropy")
    assert {own["seeds"] for own in found["designs"]} == {2, 3, 4, 5, 8, 12}
    every = write_spec(CONTRAST + '[analysis]\nmonitoring = "anytime"\n')
    assert told(engine("power", every).output.replace("\n", " "), "seeds", "2")


def test_outcomes_are_those_of_the_spec_that_its_cells_measure(write_spec) -> None:
    more = '[analysis]\nprimary = "kl_final"\nsmallest_difference_of_interest = { absolute_error = 0.2 }\n'
    assert [row["outcome"] for row in planned(write_spec(CONTRAST + more))] == ["kl_final", "absolute_error"]
    assert [row["outcome"] for row in planned(write_spec(CONTRAST), "--set", "probe.enabled=false")] == [
        "correct"
    ]
    assert planned(write_spec(CONTRAST), "--set", "contrasts=[]") == []


@pytest.mark.parametrize(
    ("outcome", "setting", "expected"),
    [
        ("correct", 'evaluate.scoring=["constrained", "generation"]', "loglikelihood"),
        ("absolute_error", 'evaluate.labels=["low", "high"]', "numbers"),
        ("generated_correct", "seeds=[0]", "generation"),
        ("max_prob", 'probe.statistics=["entropy"]', "probe.statistics"),
    ],
)
def test_a_declared_outcome_that_nothing_measures_is_a_warning(
    write_spec, outcome: str, setting: str, expected: str
) -> None:
    """Neither does the plan promise power in it."""
    spec = write_spec(CONTRAST + f'[analysis]\nprimary = "{outcome}"\n')
    plan = json.loads(engine("plan", spec, "--json", "--set", setting).output)
    assert plan["power"] == []
    (warning,) = [text for text in plan["warnings"] if "none of the labels" not in text]
    assert told(
        warning, "analysis.primary", "4 of 4" if "seeds" not in setting else "2 of 2", outcome, expected
    )


def test_planning_a_study_without_a_pilot_imports_no_xarray(write_spec) -> None:
    code = (
        "import sys; from engine.cli.main import main; sys.argv[1:] = sys.argv[2:]\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print({'torch', 'xarray', 'pandas', 'scipy.stats'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "-", "plan", str(write_spec(CONTRAST))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "set()", done.stdout


def test_the_store_of_a_spec_is_its_pilot(write_spec, small_store: Path) -> None:
    """By outcomes that vary on every machine: which label a model of random weights prefers need not."""
    interest = '[analysis]\nprimary = "entropy"\nsmallest_difference_of_interest = { nll = 0.1 }\n'
    entropy, nll = planned(write_spec(CONTRAST + interest), "--pilot", small_store)
    assert (entropy["outcome"], nll["outcome"]) == ("entropy", "nll")
    for row in (entropy, nll):
        assert told(row["source"], "2 seeds", "6 examples", str(small_store))
        assert len(row["detectable_range"]) == 2
        low, high = row["detectable_range"]
        assert low <= row["detectable"] <= high
    text = engine("plan", write_spec(CONTRAST + interest), "--pilot", small_store).output
    assert told(text.replace("\n", " "), "entropy, nll", "2 seeds")
    own = planned(write_spec(CONTRAST + interest), "--store", small_store)
    assert [row["variances"] for row in own] == [row["variances"] for row in (entropy, nll)]
    (alone,) = planned(write_spec(CONTRAST), "--pilot", small_store, "--set", 'analysis.primary="max_prob"')
    assert alone["outcome"] == "max_prob" and alone["variances"]["rest"] > 0


def test_designs_stand_beside_their_costs(write_spec) -> None:
    spec = write_spec(CONTRAST + ASSUMED)
    found = curve(spec, "--difference", 0.9, "--set", "data.test=8")
    rows = {(row["seeds"], row["examples"]): row for row in found["designs"]}
    estimate = json.loads(engine("plan", spec, "--json", "--set", "data.test=8").output)["estimate"]
    once = estimate["base"]["flops"]  # the untrained model is evaluated once, whatever the seeds
    total = sum(stage["flops"] for stage in estimate.values()) - once
    assert rows[2, 8]["cells"] == 4 and rows[2, 8]["flops"] == pytest.approx(total + once)
    assert rows[5, 8]["cells"] == 10 and rows[5, 8]["flops"] == pytest.approx(2.5 * total + once)
    assert rows[5, 8]["flops"] < rows[5, 13]["flops"] if (5, 13) in rows else True
    best = found["cheapest"]
    assert best["power"] >= 0.8 and best["seeds"] <= 5
    text = engine("power", spec, "--difference", 0.001).output
    assert "finds 0.1 points with 80% power." in text and told(text, "No design")
    assert "power at" not in engine("power", spec).output
    one = curve(spec, "--set", "seeds=[3]", "--outcome", "entropy")
    assert {row["seeds"]: row["cells"] for row in one["designs"]}[3] == 6 and one["cheapest"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--outcome", "acuracy"], '--outcome … acuracy … "correct"'),
        (
            ["--outcome", "generated_correct"],
            "--outcome generated_correct … contrasts",
        ),
        (
            ["--contrast", "instruction"],
            "--contrast instruction … [[contrasts]] … target",
        ),
        (
            ["--set", "contrasts=[]"],
            "[[contrasts]] … none",
        ),
        (["--difference", "0"], "0.0 is not in the range x>0"),
        (["--difference", "nan"], "--difference … nan … x>0"),
        (["--difference", "inf"], "--difference … inf … x>0"),
        (["--outcome", "correct", "--difference", "3"], "--difference … 3 … at most 1 … 3 points are 0.03"),
        (["--power", "nan"], "--power … nan … 0<x<1"),
        (["--power", "1"], "1.0 is not in the range 0<x<1"),
        (["--store", "nowhere"], 'found "nowhere", which is no store'),
    ],
)
def test_what_cannot_be_asked_is_told(write_spec, arguments: list[str], said: str) -> None:
    assert told(engine("power", write_spec(CONTRAST), *arguments, code=2).output, said)


def test_a_pilot_without_the_experiment_is_told(write_spec, small_store: Path) -> None:
    for command in ("plan", "power"):
        output = engine(
            command, write_spec(CONTRAST), "--pilot", small_store, "--set", 'name="other"', code=2
        ).output
        assert told(output, '"other"', "small")
