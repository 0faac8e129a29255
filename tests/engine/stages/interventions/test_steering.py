"""`kind = "steer"`: directions added to residual streams, against hooks on plain models in float64."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from commands import command, engine
from drawn_differences import COUNTS, drawn
from facts import told
from small_study import small_spec, writer
from torch import Tensor
from two_trainings import EXAMPLES, LABELS, Study

import engine as ablation_engine
import store
from engine.data import prepare as data
from engine.models.lens import find_lens
from engine.planning.changes import Addition, Change
from engine.planning.estimate import estimate
from engine.planning.plan import make_plan
from engine.progress import StopRequest, silent
from engine.stages.adapter_layout import arrangement
from engine.stages.interventions.directions import Directions
from engine.stages.interventions.intervene import InterventionRun
from engine.text.targets import TargetEncoder
from specs import load_spec, resolve
from specs.tables.evaluate import Evaluate
from specs.tables.probe import Probe
from store.analysis.inference import infer
from store.report.collect import collect


def steered(
    model: Any, prompt: list[int], added: dict[int, Tensor], places: Sequence[int] | None
) -> list[float]:
    """The labels' first tokens' log-probabilities where hooks add vectors behind layers, at some tokens."""
    lens, hooks = find_lens(model), []

    def adding(vector: Tensor) -> Callable[..., Any]:
        def hook(_: Any, _args: Any, output: Any) -> Any:
            stream = (output[0] if isinstance(output, tuple) else output).clone()
            stream[:, slice(None) if places is None else list(places)] += vector
            return (stream, *output[1:]) if isinstance(output, tuple) else stream

        return hook

    for layer, vector in added.items():
        hooks.append(lens.layers[layer - 1].register_forward_hook(adding(vector)))
    with torch.no_grad():
        logprobs = model(input_ids=torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
    for hook in hooks:
        hook.remove()
    return logprobs.tolist()


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt-neox"])
def test_additions_are_those_of_hooks(name: str, tmp_path: Path, tokenizer: Any) -> None:
    study, text = Study(name, tmp_path, tokenizer), writer(tokenizer)
    models = {"default": study.model(study.own), "donor": study.model(study.donor), "": study.model(None)}
    for model in models.values():
        model.double()
    found = drawn(find_lens(models[""]).width)
    means = found["mean_difference"].values.astype(float)

    def change(number: int, layers: Sequence[int], source: str, onto: bool, **options: Any) -> Change:
        places = options.pop("places", None)
        return Change(
            str(number), "s", "steer", tuple(layers), source=source, source_name=source, onto_source=onto,
            positions=places, addition=Addition(**options),
        )  # fmt: skip

    own = {"layer": None, "positions": ("prompt_end",)}
    changes = [
        change(0, (2,), "donor", True, against="target=label", strength=1.0, **own),
        change(1, (2,), "", True, against="base", strength=-2.5, places=(-1,), **own),
        change(2, (1, 3), "", False, against="base", strength=0.5, places=(-2, -1), **own),
        change(3, (3,), "donor", True, against="target=label", strength=1.0, places=(-1,),
               layer=0, positions=("prompt_end", "completion_end", "explanation[0]")),
        change(4, (1,), "donor", False, against="target=label", strength=3.0, places=(-3,), **own),
    ]  # fmt: skip
    one, two = means[:, 0, 0], means[:, 0, 1]
    both = (COUNTS[0] * means[0, 0, 1] + COUNTS[1] * means[0, 1, 1]) / (COUNTS[0] + COUNTS[1])
    expected: list[tuple[str, dict[int, np.ndarray], tuple[int, ...] | None]] = [
        ("donor", {2: two[2]}, None),
        ("", {2: -2.5 * one[2]}, (-1,)),
        ("default", {1: 0.5 * one[1], 3: 0.5 * one[3]}, (-2, -1)),
        ("donor", {3: both}, (-1,)),
        ("default", {1: 3 * two[1]}, (-3,)),
    ]
    whole = [Change("none", "none", "none"), Change("all of donor", "source", "source", source="donor")]
    with arrangement(study.model(study.own), {"donor": study.donor}) as arranged:
        arranged.model.double()
        run = InterventionRun(
            arranged, tokenizer, text, Evaluate(labels=LABELS), Probe(batch_size=2, backend="reference"),
            directions=Directions(found, 0),
        )  # fmt: skip
        batches = list(run.run(EXAMPLES, [*whole, *changes], silent, StopRequest()))
    scores = np.concatenate([batch["label_logprob"] for batch in batches])
    for place, (source, added, positions) in enumerate(
        [("default", {}, None), ("donor", {}, None), *expected]
    ):
        vectors = {layer: torch.from_numpy(vector) for layer, vector in added.items()}
        for number, row in enumerate(EXAMPLES):
            prompt, spellings = text.encode_spellings(row)
            places = None if positions is None else [len(prompt) + at for at in positions]
            logprobs = steered(models[source], prompt, vectors, places)
            np.testing.assert_allclose(
                scores[number, place], [logprobs[label[0][0]] for label in spellings], atol=3e-6, rtol=0
            )
        without = {"default": 0, "donor": 1}.get(source)
        if place > 1 and without is not None:
            assert np.abs(scores[:, place] - scores[:, without]).max() > 1e-3


def test_random_directions_are_as_long_and_drawn_by_the_seed() -> None:
    found = drawn(32)

    def of(seed: int, draw: int | None, strength: float = 1.0, layer: int = 2) -> Tensor:
        return Directions(found, seed).of(Addition("base", None, ("prompt_end",), strength, draw), layer)

    difference = of(0, None)
    np.testing.assert_allclose(difference, found["mean_difference"].values[2, 0, 0], rtol=1e-7)
    draws = [of(seed, draw) for seed in range(20) for draw in range(1, 6)]
    for direction in draws:
        torch.testing.assert_close(direction.norm(), difference.norm())
    cosines = torch.stack(draws) @ torch.stack(draws).T / difference.norm() ** 2
    apart = cosines[~torch.eye(100, dtype=torch.bool)]
    assert apart.abs().max() < 0.8 and apart.mean().abs() < 0.01  # sd 1/sqrt(32)
    assert apart.square().mean() == pytest.approx(1 / 32, rel=0.1)
    torch.testing.assert_close(of(3, 2, -2.0), -2 * of(3, 2))
    assert not torch.allclose(of(0, 1), of(0, 1, layer=1) * (of(0, 1).norm() / of(0, 1, layer=1).norm()))
    nowhere = Addition("base", None, ("explanation[0]",), 1.0)
    with pytest.raises(Exception, match=r"no test example has a token at explanation\[0\]"):
        Directions(found, 0).of(nowhere, 1)


LABEL, EXPLAINED = "label", "label+explanation"
MORE = """
[probe]
examples = 4
positions = ["prompt_end", "completion_end"]
against = ["base", { target = "label" }]
differences = true

[[interventions]]
name = "onto base"
kind = "steer"
strength = [1, -2]
positions = ["prompt_end"]
random_directions = 2

[[interventions]]
name = "out of own"
kind = "steer"
cells = { target = "label+explanation" }
donor = { target = "label" }
onto = "own"
strength = [-1.0]
from_layer = -1
"""
STEPS = "steps = 6\nlr = 0.05"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rated_file: Path) -> Path:
    folder = tmp_path_factory.mktemp("steering")
    engine("execute", small_spec(folder, tiny_model, rated_file, MORE, train=STEPS))
    return folder / "store"


def test_a_study_steers_by_what_it_has_stored(root: Path) -> None:
    tree = store.open_store(root)
    differences = tree["small/differences"].to_dataset()
    matrix = resolve(load_spec(root.parent / "small.toml"))
    plan = make_plan(matrix)
    nodes = [node.to_dataset() for node in tree["small/intervene"].children.values()]
    assert len(nodes) == 2  # of the two targets
    for cell in plan.cells:
        levels = plan.levels(cell)
        node = next(node for node in nodes if levels["target"] in node["target"].values)
        mine = node.sel(target=levels["target"], seed=levels["seed"]).squeeze()
        own = differences.sel(target=levels["target"], seed=levels["seed"]).squeeze()
        model, tokenizer = ablation_engine.load_adapter(root, levels)
        text = TargetEncoder(
            tokenizer=tokenizer,
            prompt=matrix.table("prompt", cell.choice), target=matrix.table("target", cell.choice),
            labels=["1", "2", "3"], dimension="naturalness", seed=levels["seed"],
        )  # fmt: skip
        model.double()
        rows = data.load(root / "data" / cell.keys["data"], "test", 4)

        def check(name: str, vectors: dict[int, np.ndarray], at: int | None) -> None:
            for number, row in enumerate(rows):  # noqa: B023
                prompt, spellings = text.encode_spellings(row)  # noqa: B023
                places = None if at is None else [len(prompt) + at]
                added = {layer: torch.from_numpy(vector).double() for layer, vector in vectors.items()}
                expected = steered(model, prompt, added, places)  # noqa: B023
                found = mine["label_logprob"].sel(intervention=name).values[number]  # noqa: B023
                wanted = [expected[label[0][0]] for label in spellings]
                np.testing.assert_allclose(found, wanted, atol=2e-4, rtol=0)

        if levels["target"] == EXPLAINED:
            vector = own["mean_difference"].sel(against="target=label", layer=3, position="prompt_end").values
            check("out of own, layer 2, -1 × mean difference", {2: -vector}, None)
        with model.disable_adapter():
            for layer in (1, 2, 3):
                vector = own["mean_difference"].sel(against="base", layer=layer, position="prompt_end").values
                check(f"onto base, layer {layer}, 1 × mean difference", {layer: vector}, -1)
                check(f"onto base, layer {layer}, -2 × mean difference", {layer: -2 * vector}, -1)
    assert "Nothing to do" in engine("execute", root.parent / "small.toml").output


def test_shares_are_of_what_lies_between_the_two_models(root: Path) -> None:
    study = store.open_store(root)["small"]
    found = study.ablation.steering("onto base", "log_odds")
    assert dict(found.sizes) == {"condition": 2, "layer": 3, "strength": 2}
    assert found["strength"].values.tolist() == [1.0, -2.0]
    nodes = {node["target"].values[0]: node.to_dataset() for node in study["intervene"].children.values()}
    for target, node in nodes.items():
        of = found.sel(condition=f"target={target}")
        true = (_log_odds(node)).mean(("cell", "example"))
        at = lambda name, true=true: float(true.sel(intervention=name))  # noqa: E731
        total = at("none") - at("all of base")
        for layer in (1, 2, 3):
            for strength in (1, -2):
                named = f"onto base, layer {layer}, {strength} × "
                here = of.sel(layer=layer, strength=strength)
                effect = at(f"{named}mean difference") - at("all of base")
                assert float(here["effect"]) == pytest.approx(effect, abs=1e-5)
                assert float(-here["total"]) == pytest.approx(total, abs=1e-5)
                random = [at(f"{named}random {draw}") - at("all of base") for draw in (1, 2)]
                assert float(here["random_effect"]) == pytest.approx(np.mean(random), abs=1e-5)
                assert float(here["random_effect_lowest"]) == pytest.approx(min(random), abs=1e-5)
                assert float(here["random_effect_highest"]) == pytest.approx(max(random), abs=1e-5)
                excess = _log_odds(node).sel(intervention=f"{named}mean difference") - _log_odds(node).sel(
                    intervention=[f"{named}random {draw}" for draw in (1, 2)]
                ).mean("intervention")
                assert float(here["excess"]) == pytest.approx(float(excess.mean()), abs=1e-5)
                groups = node["group"].values if "group" in node.coords else None
                own = infer(excess.transpose("cell", "example").values[..., None], groups)
                for bound, value in (("low", own.low), ("high", own.high)):
                    assert float(here[f"excess_{bound}"]) == pytest.approx(float(value[0]), abs=1e-4)
                if np.isfinite(here["share"]):
                    assert float(here["share"]) == pytest.approx(effect / total, abs=1e-4)


def test_the_report_sets_out_strengths_and_directions(root: Path) -> None:
    (reported,) = collect(root)["experiments"]
    (entry,) = (own for own in reported["interventions"]["entries"] if own["name"] == "onto base")
    found = entry["conditions"][0]["map"]
    assert (entry["settings"]["strength"], found["columns"]) == ([1, -2], "strength, direction")
    assert set(found["row"]) == {"layer 1", "layer 2", "layer 3"}
    directions = ("mean difference", "random 1", "random 2")
    assert set(found["column"]) == {f"{strength}, {one}" for strength in (1, -2) for one in directions}


def _shares(node: xr.Dataset) -> xr.DataArray:
    scores = np.exp(node["label_logprob"].astype(float))
    return scores / scores.sum("label")


def _log_odds(node: xr.Dataset) -> xr.DataArray:
    true = _shares(node).where(node["label"] == node["gold"]).max("label")
    return np.log(true / (1 - true))


def test_one_example_is_moved_all_the_way(tmp_path: Path, tiny_model: Path, rated_file: Path) -> None:
    """Its own difference, added behind the last layer, makes the one model of the other."""
    more = MORE.replace("examples = 4", "examples = 1").replace("strength = [1, -2]", "layers = [-1]")
    more = more.replace("from_layer = -1", 'layers = [-1]\npositions = ["prompt_end"]')
    engine("execute", small_spec(tmp_path, tiny_model, rated_file, more, train=STEPS))
    for node in store.open_store(tmp_path / "store")["small/intervene"].children.values():
        scores = node.to_dataset()["label_logprob"]

        def at(name: str) -> np.ndarray:
            return scores.sel(intervention=name).values  # noqa: B023

        moved = at("onto base, layer 3, 1 × mean difference")
        np.testing.assert_allclose(moved, at("none"), atol=1e-4)
        assert np.abs(at("all of base") - at("none")).max() > 0.05
        assert np.abs(at("onto base, layer 3, 1 × random 1") - at("none")).max() > 0.05
        if EXPLAINED in node["target"].values:
            back = at("out of own, layer 3, -1 × mean difference")
            np.testing.assert_allclose(back, at("all of target=label"), atol=1e-4)


def test_its_key_holds_the_differences(tmp_path: Path, tiny_model: Path, rated_file: Path) -> None:
    more = MORE.replace("from_layer = -1\n", "")
    spec = small_spec(tmp_path, tiny_model, rated_file, more, train=STEPS)

    def keys(*overrides: str) -> list[str]:
        return [cell.keys["intervene"] for cell in make_plan(resolve(load_spec(spec, overrides))).cells]

    before = keys()
    assert len(set(before)) == 4
    assert keys("probe.statistics=['entropy']", "probe.heads=true") == before
    assert not set(before) & set(keys("probe.top_k=2"))  # another result of `differences`
    assert not set(before) & set(keys("probe.layers=[1,2,3]"))
    assert not set(before) & set(keys("factors.target.levels.label.train.lr=0.01"))


def test_a_plan_counts_random_directions(tmp_path: Path, tiny_model: Path, rated_file: Path) -> None:
    more = MORE.replace("from_layer = -1\n", "")

    def cost(more: str) -> Any:
        costs = estimate(make_plan(resolve(load_spec(small_spec(tmp_path, tiny_model, rated_file, more)))))
        assert costs is not None
        return costs["intervene"]

    some, none = cost(more), cost(more.replace("random_directions = 2", "random_directions = 0"))
    assert some.flops > 1.5 * none.flops and some.stored > none.stored


def test_without_the_differences_nothing_is_steered(
    tmp_path: Path, tiny_model: Path, rated_file: Path
) -> None:
    more = MORE.partition('[[interventions]]\nname = "out of own"')[0]
    spec, only = small_spec(tmp_path, tiny_model, rated_file, more), ("--only", "seed=0")
    engine("execute", spec, *only)
    root = tmp_path / "store"
    plan = make_plan(resolve(load_spec(spec)))
    key = next(c.keys["train"] for c in plan.cells if plan.levels(c) == {"target": LABEL, "seed": 0})
    (donor,) = (root / "train" / key).glob("adapter/*.safetensors")
    content = donor.read_bytes()
    donor.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    spec.write_text(spec.read_text().replace("examples = 4", "examples = 3"))
    ended = engine("execute", spec, *only, "--only", f"target={EXPLAINED}", code=1)
    assert "changed" in ended.output and "intervene" not in ended.output.partition("Ran ")[2]
    again = engine("execute", spec, *only, "--retry-failed").output
    assert "intervene" in again.partition("Ran ")[2]


def test_damaged_differences_add_nothing(root: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(root, tmp_path / "store")
    (spec := tmp_path / "small.toml").write_text(
        (root.parent / "small.toml").read_text().replace("[1, -2]", "[3]").replace(str(root), str(copied))
    )
    damaged = list(copied.glob("results.zarr/differences/*/float32-*-coordinate/c.*"))
    for file in damaged:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 255
        file.write_bytes(content)
    ended = engine("execute", spec, code=1)
    assert damaged and told(ended.output, "differences", "`engine verify STORE --fix`"), ended.output
    command("verify", copied, "--fix")
    assert "Ran 4 differences, 4 intervene" in engine("execute", spec, "--retry-failed").output


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("differences = true", "", ["interventions[0].kind", "probe.differences = true"]),
        ('against = ["base", ', "against = [", ["interventions[0].donor", "probe.against", '"base"']),
        ("strength = [1, -2]", "strength = [1, 0]", ["interventions[0].strength[1]", "0 adds nothing"]),
        ("strength = [1, -2]", 'from_positions = ["label"]', ["from_positions", "completion_end", "label"]),
        ("strength = [1, -2]", "from_layer = 4", ["interventions[0].from_layer", "4", "0 to 3", "-3 to -1"]),
        ("strength = [1, -2]", "alpha = 0.5", ["interventions[0].alpha", "steer"]),
        ('donor = { target = "label" }', 'donor = "own"', ["interventions[1].donor", "itself"]),
    ],
)
def test_what_cannot_be_added_is_told(
    tmp_path: Path, tiny_model: Path, rated_file: Path, old: str, new: str, words: list[str]
) -> None:
    more = MORE.replace("from_layer = -1\n", "")
    assert old in more
    _, output = command("plan", small_spec(tmp_path, tiny_model, rated_file, more.replace(old, new)))
    assert told(output, *words), output


def test_a_layer_that_is_not_probed_is_told_before_the_training(
    tmp_path: Path, tiny_model: Path, rated_file: Path
) -> None:
    more = MORE.replace("from_layer = -1\n", "").replace(
        "differences = true", "differences = true\nlayers = [3]"
    )
    spec = small_spec(tmp_path, tiny_model, rated_file, more)
    ended = engine("execute", spec, code=1)
    assert told(ended.output, "onto base", "layer 1", "probe.layers (3)")
