"""`steering`: a mean difference beside random directions, and what it cannot be asked."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import xarray as xr
from facts import told
from report_store import Design, write_synthetic

import store
from store import StoreError
from store.analysis.inference import infer
from store.analysis.intervention_outcomes import outcome_of
from store.analysis.nodes import by_condition, stage_nodes

STEER: dict[str, Any] = {
    "name": "steer", "kind": "steer", "strength": [1.0, -0.5], "random_directions": 3, "layers": [1, 2],
    "positions": ["prompt_end", -2], "grid": True,
}  # fmt: skip
PLAIN = {"name": "plain", "kind": "steer", "random_directions": 0}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    design = Design(
        {"target": ["label"]}, seeds=(0, 1, 2), examples=20, layers=4,
        interventions=[STEER, PLAIN, {"name": "off", "kind": "mask"}],
    )  # fmt: skip
    return store.open_store(write_synthetic(tmp_path_factory.mktemp("steered") / "store", design))[
        "synthetic"
    ]


@pytest.mark.parametrize("outcome", ["correct", "log_odds", "probability"])
def test_what_exceeds_random_directions_is_paired_by_example(study: xr.DataTree, outcome: str) -> None:
    found = study.ablation.steering("steer", outcome)
    assert dict(found.sizes) == {"condition": 1, "layer": 2, "strength": 2, "position": 2}
    (node,) = map(by_condition, stage_nodes(study, "intervene").values())
    values = outcome_of(node, "steer", outcome)
    names = node["intervention"].values.tolist()
    groups = node["group"].values if "group" in node.coords else None

    def of(name: str) -> np.ndarray:
        return values[:, :, names.index(name)]

    for layer, strength, position in product((1, 2), (1.0, -0.5), ("prompt_end", "-2")):
        start = f"steer, layer {layer}, {strength:g} × "
        moved = of(f"{start}mean difference, {position}")
        random = [of(f"{start}random {draw}, {position}") for draw in (1, 2, 3)]
        excess = moved - np.mean(random, axis=0)
        own = infer(excess[..., None], groups)
        here = found.isel(condition=0).sel(layer=layer, strength=strength, position=position)
        assert float(here["excess"]) == pytest.approx(float(excess.mean()))
        if outcome == "log_odds":
            assert float(here["excess_low"]) == pytest.approx(float(own.low[0]))
            assert float(here["excess_high"]) == pytest.approx(float(own.high[0]))
        else:  # within what shares can change by
            assert -1 <= here["excess_low"] <= here["excess"] <= here["excess_high"] <= 1
        base = of("all of base")
        assert float(here["effect"]) == pytest.approx(float((moved - base).mean()))
        means = [float((values_of - base).mean()) for values_of in random]
        assert float(here["random_effect"]) == pytest.approx(np.mean(means))
        ends = [float(here[f"random_effect_{end}"]) for end in ("lowest", "highest")]
        assert ends == pytest.approx([min(means), max(means)])


def test_without_random_directions_there_is_nothing_to_exceed(study: xr.DataTree) -> None:
    found = study.ablation.steering("plain")
    assert {"effect", "share"} <= {*found} and not [name for name in found if "random" in str(name)]
    assert "excess" not in found


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda a: a.steering("off"), ["off", "steer"]),
        (lambda a: a.steering("stear"), ["'stear'", "'steer'"]),
        (lambda a: a.steering("steer", "entropy"), ["entropy"]),
        (lambda a: a.intervention_effects("plain", reference="random"), ["random_directions"]),
        (lambda a: a.intervention_effects("steer", direction="random 9"), ["'random 9'"]),
    ],
)
def test_what_cannot_be_asked(study: xr.DataTree, ask: Callable[[Any], Any], words: list[str]) -> None:
    with pytest.raises(StoreError) as caught:
        ask(study.ablation)
    assert told(str(caught.value), *words)
