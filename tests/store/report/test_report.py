"""The report's data: what it takes from a store, how it is packed, and that nothing in it breaks the page."""

from __future__ import annotations

import base64
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import engine
from facts import facts, told
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from report_store import Design, write_synthetic

from store import StoreError, open_store, read_vocabulary, write_vocabulary
from store.analysis import change, intervention_effects, means, mediation
from store.report import interventions, write_report
from store.report.collect import collect
from store.report.encode import NOTHING, fixed_point, rounded
from store.report.page import embedded

TARGETS = ["label", "label+explanation"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    design = Design(
        {"target": TARGETS, "rank": [8, 16]},
        contrasts=[{"factor": "target", "baseline": "label"}],
        examples=10,
        layers=4,
        failed=(7,),
    )
    return write_synthetic(tmp_path_factory.mktemp("report") / "store", design)


@pytest.fixture(scope="module")
def experiment(root: Path) -> dict[str, Any]:
    (only,) = collect(root)["experiments"]
    assert isinstance(only, dict)
    return only


def test_the_means_are_those_of_the_store(root: Path, experiment: dict[str, Any]) -> None:
    evaluated = open_store(root)["synthetic/evaluate"].to_dataset()
    right = (evaluated["prediction"] == evaluated["gold"]).mean("example")
    (accuracy,) = [m for m in experiment["results"]["metrics"] if m["name"] == "accuracy"]
    labels = [condition["label"] for condition in experiment["conditions"]]
    assert labels == [f"target={target}, rank={rank}" for target in TARGETS for rank in (8, 16)]
    for place, mean, low, high, seeds, examples in accuracy["rows"]:
        own = experiment["conditions"][place]["levels"]
        seen = right.sel(target=own["target"], rank=int(own["rank"]))
        assert mean == pytest.approx(float(seen.mean()), rel=1e-3)
        assert low <= mean <= high
        assert (seeds, examples) == (seen.sizes["seed"], 10)


def test_means_have_the_intervals_of_one_sample_where_there_is_one_seed(root: Path) -> None:
    part = open_store(root)["synthetic/probe"].to_dataset().sel(seed=0)
    found = means(part, "entropy")
    values = part["entropy"].isel(cell=0).values.astype(float)
    own = found.isel(level=0)
    half = 2.2621571628 * values.std(axis=0, ddof=1) / math.sqrt(10)  # t quantile of 9 degrees of freedom
    np.testing.assert_allclose(own["mean"], values.mean(axis=0))
    # Where values are skewed, the other end is farther away.
    np.testing.assert_allclose(np.fmin(own["high"] - own["mean"], own["mean"] - own["low"]), half)
    assert own["mean"].attrs == {"units": "nat", "long_name": "entropy"}


def test_means_of_a_summary_cover_seeds_and_name_what_is_wrong(root: Path) -> None:
    node = open_store(root)["synthetic"]
    found = means(node, "qwk", stage="summary")
    own = node["summary"].to_dataset()["qwk"].sel(target="label", rank=8).values
    np.testing.assert_allclose(found["mean"].isel(level=0), own.mean())
    assert math.isnan(found["low"].isel(level=3))  # one of its two seeds failed
    with pytest.raises(StoreError, match=facts("'qwkk'", "'qwk'")):
        means(node, "qwkk", stage="summary")


def test_contrasts_are_those_of_the_analysis(root: Path, experiment: dict[str, Any]) -> None:
    node = open_store(root)["synthetic"]
    overall, *within = experiment["contrasts"]["rows"]
    assert overall["over"] == ["rank"] and overall["within"] == {}
    assert [row["within"] for row in within] == [{"rank": "8"}, {"rank": "16"}]
    expected = change(node, "correct", "target", "label").isel(level=0)
    for name in ("difference", "low", "high", "p_adjusted"):
        assert overall["outcomes"]["correct"][name] == rounded(expected[name])
    by_layer = change(node, "entropy", "target", "label").isel(level=0).transpose("position", "layer")
    assert overall["layers"]["entropy"]["difference"] == rounded(by_layer["difference"])
    assert overall["layers"]["entropy"]["p_adjusted"] == rounded(by_layer["p_adjusted"])
    labels = [condition["label"] for condition in experiment["conditions"]]
    assert [labels[place] for place in overall["references"]] == [
        "target=label, rank=8",
        "target=label, rank=16",
    ]


CHANGES = [
    {"name": "off", "kind": "mask", "width": [1, 2]},
    {"name": "heads", "kind": "heads", "layers": [2, 1], "ablation": "mean"},
]


def test_interventions_are_those_of_the_analysis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    design = Design({"target": TARGETS}, examples=10, layers=4, interventions=CHANGES)
    node = open_store(write_synthetic(tmp_path, design))["synthetic"]
    off, heads = collect(tmp_path)["experiments"][0]["interventions"]["entries"]
    assert [own["condition"] for own in off["conditions"]] == [0, 1]
    own = off["conditions"][1]
    assert own["changed"] == ["layer 1", "layer 2", "layer 3", "layers 1-2", "layers 2-3"]
    assert own["place"] == [1, 2, 3, 1.5, 2.5]
    assert own["line"] == ["single layers"] * 3 + ["2 layers"] * 2
    condition = {"condition": "target=label+explanation"}
    for outcome, found in own["effects"].items():
        expected = intervention_effects(node, "off", outcome).sel(condition)
        for name in ("effect", "low", "high", "p_adjusted"):
            assert found[name] == rounded(expected[name])
        assert off["methods"][outcome] == expected.attrs["method"]
        shares = mediation(node, "off", outcome).sel(condition)
        for name in ("share", "low", "high"):
            assert own["shares"][outcome][name] == rounded(shares[name])
        assert own["shares"][outcome]["total"] == rounded(shares["total"][0])
    entropy = intervention_effects(node, "off", "entropy").sel(condition)
    assert own["entropy"]["effect"] == rounded(entropy["effect"])
    assert np.array_equal(own["entropy"]["sure"], entropy["p_adjusted"] < 0.05)
    # Single heads take from no other model, and their entropies stay in the store.
    own = heads["conditions"][0]
    assert own["changed"][:5] == [*(f"layer 1, head {n}" for n in range(4)), "layer 2, head 0"]
    assert own["entropy"] is None and own["shares"] == {} and told(heads["unshared"], "no other model")
    monkeypatch.setattr(interventions, "MOST_BYTES", 100)
    short = collect(tmp_path)["experiments"][0]["interventions"]["entries"]
    assert [(len(own["conditions"]), own["left_out"]) for own in short] == [(1, 1), (1, 1)]


def test_a_tuned_lens_stands_beside_its_logit_twin(tmp_path: Path) -> None:
    def reported(folder: str, lenses: list[str]) -> Any:
        design = Design(
            {"target": TARGETS, "lens": lenses}, examples=4, layers=3, paths={"lens": "probe.lens"}
        )
        return collect(write_synthetic(tmp_path / folder, design))["experiments"][0]["tuned"]

    found = reported("both", ["logit", "tuned"])
    assert found["twins"] == {"1": 0, "3": 2}
    assert reported("alone", ["tuned"])["twins"] == {}
    assert told(reported("none", ["logit"])["missing"], "tuned lens")
    kl = open_store(tmp_path / "both")["synthetic/lens"].to_dataset()["translator_kl"].astype(float)
    own = kl.sel(target="label")
    layers, curve = found["layers"][0], found["curves"][0]
    assert (layers["condition"], layers["layer"], curve["condition"]) == (1, [0, 1], 1)
    for name, step in (("first", 0), ("last", -1)):
        assert layers[name]["mean"] == rounded(own.isel(step=step).mean("cell"))
        assert layers[name]["high"] == rounded(own.isel(step=step).max("cell"))
    assert curve["step"] == list(range(1, 31)) and curve["mean"] == rounded(own.mean(("cell", "layer")))


def test_failed_cells_stand_in_the_matrix_with_their_traceback(experiment: dict[str, Any]) -> None:
    states = [cell["state"] for cell in experiment["cells"]]
    assert states == ["done"] * 7 + ["failed"]
    assert experiment["cells"][7]["stage"] == "evaluate"
    assert "MemoryError: out of memory" in experiment["cells"][7]["traceback"]


def test_a_spec_without_contrasts_is_held_against_first_levels(tmp_path: Path) -> None:
    write_synthetic(tmp_path, Design({"target": TARGETS}, examples=4, layers=2, seeds=(0,)))
    found = collect(tmp_path)["experiments"][0]["contrasts"]
    assert not found["declared"]
    assert [(row["level"], row["baseline"]) for row in found["rows"]] == [("label+explanation", "label")]


def test_transfer_takes_the_factors_that_set_training_and_test_data(tmp_path: Path) -> None:
    sets = ["naturalness", "on-topic"]
    design = Design(
        {"target": TARGETS, "train_on": sets, "test_on": sets},
        paths={"train_on": "data.dimension", "test_on": "evaluate.data.dimension"},
        examples=4,
        layers=2,
        seeds=(0,),
    )
    transfer = collect(write_synthetic(tmp_path, design))["experiments"][0]["transfer"]
    assert (transfer["train"], transfer["test"]) == ("train_on", "test_on")
    accuracies = [own for own in transfer["matrices"] if own["metric"] == "accuracy"]
    assert [own["within"] for own in accuracies] == [{"target": target} for target in TARGETS]
    summary = open_store(tmp_path)["synthetic/summary"].to_dataset()["accuracy"].sel(target="label", seed=0)
    expected = [[float(summary.sel(train_on=a, test_on=b).item()) for b in sets] for a in sets]
    np.testing.assert_allclose(accuracies[0]["value"], expected, rtol=1e-3)


def test_the_command_writes_one_file_and_the_probe_keeps_texts_of_tokens(
    write_spec, tmp_path: Path, tiny_model: Path
) -> None:
    from transformers import AutoTokenizer

    engine("execute", write_spec(train="steps = 1"), "--set", "seeds=[0]")
    file = tmp_path / "sub" / "page.html"
    assert engine("report", tmp_path / "store", "-o", file).output.strip() == str(file)
    assert file.read_text("utf-8").startswith("<!doctype html>")
    engine("report", tmp_path / "store")
    assert (tmp_path / "store" / "report.html").exists()
    (shape,) = collect(tmp_path / "store")["experiments"][0]["samples"]["shapes"]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    decoded = [tokenizer.decode([number]) for number in shape["ids"]]
    whole = [number for number, text in enumerate(decoded) if "\ufffd" not in text]
    assert len(whole) > 2
    assert [shape["texts"][number] for number in whole] == [decoded[number] for number in whole]
    ended = engine("report", tmp_path / "store", "--experiment", "smal", code=2)
    assert told(ended.output, "'smal'", "'small'")


def test_whoever_waits_is_told_of_every_section(root: Path) -> None:
    told_of: list[tuple[int, int, str]] = []
    data = collect(root, follow=lambda *step: told_of.append(step))
    assert [done for done, _, _ in told_of] == list(range(len(told_of)))
    assert {total for _, total, _ in told_of} == {len(told_of)}
    name = data["experiments"][0]["name"]
    assert [part for _, _, part in told_of][:2] == [f"{name}: results", f"{name}: contrasts"]


def test_a_store_without_experiments_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a store: expected"):
        write_report(tmp_path, tmp_path / "report.html")


def test_two_hundred_cells_stay_small(tmp_path: Path) -> None:
    design = Design(
        {"target": [f"target {n}" for n in range(10)], "rank": [4, 8, 16, 32]},
        seeds=(0, 1, 2, 3, 4),
        distinct=10,
        examples=48,
        layers=33,
        steps=500,
        vocabulary=[f" token{n}" for n in range(30000)],
        contrasts=[{"factor": "rank", "baseline": 4}],
    )
    file = write_report(write_synthetic(tmp_path / "store", design), tmp_path / "report.html")
    size = file.stat().st_size
    assert 5e6 < size < 15e6  # the sample fills its budget, and no more
    text = file.read_text("utf-8")
    data = json.loads(text.partition('id="report-data">')[2].partition("</script>")[0])
    contrasts = data["experiments"][0]["contrasts"]
    assert len(contrasts["rows"]) + contrasts["left_out"] == 3 + 3 * 10
    (shape,) = data["experiments"][0]["samples"]["shapes"]
    assert len(shape["conditions"]) == 40 and 1 < len(shape["examples"]) < 40


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(JSON)
def test_embedded_data_is_itself_and_cannot_end_its_element(value: Any) -> None:
    text = embedded(value)
    assert json.loads(text) == value
    assert text.isascii() and "<" not in text


@given(arrays(np.float64, (3, 2), elements=st.floats(0, 60) | st.just(float("nan"))))
def test_fixed_point_keeps_values_to_half_a_step(values: np.ndarray) -> None:
    packed = fixed_point(values, 1000)
    raw = np.frombuffer(base64.b64decode(packed["data"]), "<u2").reshape(values.shape)
    back = np.where(raw == NOTHING, np.nan, raw / 1000)
    np.testing.assert_allclose(back, values, atol=0.0005 + 1e-12)


def test_fixed_point_takes_the_largest_step_for_all_beyond() -> None:
    packed = fixed_point(np.array([70.0, np.inf]), 1000)
    assert np.frombuffer(base64.b64decode(packed["data"]), "<u2").tolist() == [NOTHING - 1] * 2


def test_rounding_keeps_four_digits_and_says_nothing_for_what_is_no_number() -> None:
    assert rounded([[1.23456, float("nan")], [1234567.0, float("-inf")]]) == [
        [1.235, None],
        [1235000.0, None],
    ]


@given(st.lists(st.text(), max_size=5))
def test_a_vocabulary_comes_back(texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        key = write_vocabulary(folder, texts)
        assert write_vocabulary(folder, texts) == key
        assert read_vocabulary(folder, key) == texts
        assert read_vocabulary(folder, "another") is None


def test_the_page_s_title_has_no_control_characters(tmp_path: Path) -> None:
    root = write_synthetic(
        tmp_path / "a\x1b[31m\u202eb", Design({"target": ["a", "b"]}, examples=4, layers=3)
    )
    title = write_report(root, tmp_path / "report.html").read_text("utf-8").partition("</title>")[0]
    assert r"a\x1b[31m\u202eb" in title and "\x1b" not in title and "\u202e" not in title
