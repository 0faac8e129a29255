"""Experiments of numbers drawn at random, for figures of what the synthetic store does not have."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from specs.common.names import LENS_TITLE

STEPS = [0.0, 0.1, 0.25, 0.5, 1.0]  # shares of a training after which `trained` was probed
SEEDS = 3
TARGETS = ("label", "label+explanation")
PROMOTED = (" good", " reply", " because", " topic", " words", " rate", " order", " the", " clear", " answer")


def trained() -> xr.DataTree:
    """Give an experiment that was probed along its trainings: entropies that fall."""
    rng = np.random.default_rng(0)
    falls = np.array([1.0, 0.6]).repeat(SEEDS)[:, None, None] * np.sqrt(STEPS)[:, None]
    apart = 0.1 * rng.normal(size=(6, 1, 1)) + 0.3 * rng.normal(size=(6, 1, 60))
    values = 2 - falls + apart + 0.1 * rng.normal(size=(6, len(STEPS), 60))
    node = xr.Dataset(
        {"entropy": (("cell", "step", "example"), values, {"units": "nat", "long_name": "entropy"})},
        _cells() | {"step": ("step", STEPS, {"long_name": "share of the steps"})},
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
    values = shape + (shape != 0) * 0.4 * rng.normal(size=(SEEDS, examples, layers, len(components)))
    values[:, :, 1:, [0, 3]] = values[:, :, :1, [1, 2]] = np.nan
    by_label = np.stack([values, -values], axis=-1)
    axes = ("cell", "example", "layer", "component", "watch")
    node = xr.Dataset(
        {"attribution": (axes, by_label / 2, {"units": "nat", "long_name": "attribution"})},
        _cells(TARGETS[:1])
        | {
            "layer": _layer(layers),
            "component": ("component", components),
            "watch": ("watch", ["1", "2"]),
            "watch_id": ("watch", [16, 17]),
            "gold": ("example", np.array(["1"] * examples, object)),
        },
    )
    return xr.DataTree.from_dict({"probe": node}, name="parts")


def read() -> xr.DataTree:
    """Give an experiment with geometry, divergences, streams within blocks and mean differences."""
    rng = np.random.default_rng(2)
    layers, examples, cells = 17, 60, SEEDS * len(TARGETS)
    depth = np.linspace(0, 1, layers)
    second = np.arange(cells) >= SEEDS  # the cells of the second target

    def noisy(shape: Any, spread: float) -> np.ndarray:
        """Add differences between cells and examples to values [cells, layers, …]."""
        own = spread * rng.normal(size=(cells, *[1] * (shape.ndim - 1)))
        found: np.ndarray = (shape + own)[:, None] + spread * rng.normal(
            size=(cells, examples, *shape.shape[1:])
        )
        return found

    rank = 6 + 22 * np.sin(np.pi * depth**0.7) * np.where(second, 1.15, 1.0)[:, None]
    apart = depth**2 * np.where(second, 0.25, 0.12)[:, None]
    streams = np.stack([3 - 1.2 * depth, 3.4 - 2.6 * depth**2], axis=-1) - 0.3 * second[:, None, None]
    streams[:, 0] = np.nan
    axes = ("cell", "example", "layer")
    probe = xr.Dataset(
        {
            "effective_rank": (axes, noisy(rank, 0.8), {"units": "1", "long_name": "effective rank"}),
            "js_against": (
                (*axes, "against"),
                noisy(apart, 0.006)[..., None],
                {"units": "nat", "long_name": "Jensen-Shannon divergence"},
            ),
            "stream_entropy": (
                (*axes, "stream"),
                noisy(streams, 0.1),
                {"units": "nat", "long_name": "entropy of what blocks add"},
            ),
        },
        _cells() | {"layer": _layer(layers), "against": ["base"], "stream": ["attention", "mlp"]},
    )
    positions = [
        "prompt_end",
        "label",
        *(f"explanation[{place}]" for place in range(0, 24, 4)),
        "completion_end",
    ]
    size = np.sqrt(depth)[:, None] * rng.uniform(0.6, 1.4, len(positions)) + 0.05 * rng.random((layers, 9))
    moved = xr.Dataset(
        {
            "difference_norm": (
                ("cell", "layer", "position"),
                size[None],
                {"units": "1", "long_name": "norm of the mean difference"},
            ),
            "top_id": (
                ("cell", "layer", "position", "top"),
                rng.integers(0, len(PROMOTED), (1, layers, len(positions), 1)),
            ),
        },
        {
            "target": ("cell", np.array(TARGETS[1:], object)),
            "layer": _layer(layers),
            "position": ("position", positions, {"long_name": "watch position"}),
        },
    )
    return xr.DataTree.from_dict({"probe": probe, "differences": moved}, name="read")


def lenses() -> xr.DataTree:
    """Give an experiment that was probed through three lenses, which name more and more the same token."""
    rng = np.random.default_rng(0)
    layers, names, drawn = 17, ["logit", "tuned", "jacobian"], (SEEDS, 60, 17, 3)
    rises = np.linspace(0, 1, layers)[:, None] ** np.array([0, 0.7, 2])  # chance of the first lens's token
    ids = np.where(rng.random(drawn) < rises, 0, rng.integers(1, 50, drawn))
    ids[..., 0] = 0
    node = xr.Dataset(
        {"top_id": (("cell", "example", "layer", "position", "lens", "top"), ids[:, :, :, None, :, None])},
        {
            **_cells(("label",)),
            "layer": _layer(layers),
            "position": ("position", np.array(["prompt_end"], object)),
            "lens": ("lens", np.array(names, object), {"long_name": LENS_TITLE}),
        },
    )
    return xr.DataTree.from_dict({"probe": node}, name="lenses")


def _cells(targets: tuple[str, ...] = TARGETS) -> dict[str, Any]:
    return {
        "target": ("cell", np.repeat(np.array(targets, object), SEEDS)),
        "seed": ("cell", [*range(SEEDS)] * len(targets)),
    }


def _layer(count: int) -> Any:
    return "layer", range(count), {"long_name": "layer, 0 = embedding"}
