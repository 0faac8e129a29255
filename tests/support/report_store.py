"""Synthetic stores for the report, written through the store's own writer: any size, any strings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from attrs import frozen
from scipy.special import log_softmax

from engine.stages.counterfactuals import counterfactual_coordinates, counterfactual_variables
from store import Coordinate, Family, Ledger, StoreWriter, Variable, write_manifest, write_vocabulary

LABELS = ["1", "2", "3", "4", "5"]
WORDS = [f" {word}" for word in ("the", "a", "of", "to", "in", "is", "it", "on", "for", "as", "with", "was")]
PROVENANCE = {
    "packages": {"ablation-engine": "0.1.0", "torch": "2.13.0"},
    "python": "3.11.7",
    "git": "0123456789abcdef",
    "hardware": {"machine": "x86_64", "system": "Linux", "cpus": 2, "threads": 2, "gpus": []},
}


@frozen
class Design:
    """What a synthetic experiment consists of."""

    factors: dict[str, Sequence[Any]]
    name: str = "synthetic"
    seeds: Sequence[int] = (0, 1)
    examples: int = 24
    layers: int = 13
    positions: Sequence[str] = ("prompt_end", "label")
    steps: int = 30
    probe: bool = True
    generates: bool = True
    vocabulary: Sequence[str] = (*LABELS, *WORDS)
    texts: bool = True
    """Whether the store keeps the texts of tokens, as those of the first versions did not."""
    contrasts: Sequence[dict[str, Any]] = ()
    paths: Mapping[str, str] = MappingProxyType({})
    """Factors that set one key of a spec; one named lens gives cells at "tuned" a tuned lens."""
    analysis: Mapping[str, Any] = MappingProxyType({})
    """As in a spec."""
    interventions: Sequence[Mapping[str, Any]] = ()
    """As in a spec."""
    heads: int = 4
    counterfactuals: Sequence[str] = ()
    """Kinds of explanations in the place of the model's own."""
    distinct: int | None = None
    """Results to write; cells beyond share them, as cells of equal settings do."""
    failed: Sequence[int] = ()
    """Cells whose evaluation failed."""
    pending: Sequence[int] = ()


def write_synthetic(root: Path, design: Design) -> Path:
    """Write a store of one experiment in which the factors' levels shift accuracy and entropy."""
    ledger, writer = Ledger(root), StoreWriter(root)
    vocabulary = write_vocabulary(root, design.vocabulary) if design.texts else ""
    combos = list(product(*design.factors.values(), design.seeds))
    cells = []
    for number, combo in enumerate(combos):
        own_levels = dict(zip(design.factors, combo, strict=False))
        wanted = {
            "lens": own_levels.get("lens") == "tuned",
            "probe": design.probe,
            "intervene": bool(design.interventions),
        }
        stages = ("train", "evaluate", *(stage for stage, there in wanted.items() if there))
        own = number % (design.distinct or len(combos))
        keys = {stage: f"{stage}{own:08d}" for stage in stages}
        cells.append({"levels": dict(zip([*design.factors, "seed"], combo, strict=True)), "keys": keys})
        if number in design.pending or own < number:
            continue
        shift = sum(list(v).index(x) for v, x in zip(design.factors.values(), combo[:-1], strict=True))
        rng = np.random.default_rng([number, 7])
        _train(writer, ledger, keys["train"], design, shift, rng)
        if number in design.failed:
            trace = "Traceback (most recent call last):\n  …\nMemoryError: out of memory"
            error = {
                "levels": cells[-1]["levels"],
                "message": "MemoryError: out of memory",
                "traceback": trace,
            }
            ledger.fail("evaluate", keys["evaluate"], error)
            continue
        _evaluate(writer, ledger, keys["evaluate"], design, shift, rng)
        if design.probe:
            _probe(writer, ledger, keys["probe"], design, shift, rng, vocabulary)
        if "lens" in keys:
            _lens(writer, ledger, keys["lens"], design, rng)
        if design.interventions:
            _intervene(writer, ledger, keys["intervene"], design, shift, rng)
    spec = {
        "name": design.name,
        "seeds": list(design.seeds),
        "factors": {
            name: {"path": design.paths[name], "values": list(levels)}
            if name in design.paths
            else {"levels": {str(level): {} for level in levels}}
            for name, levels in design.factors.items()
        },
        "contrasts": list(design.contrasts),
        "analysis": dict(design.analysis),
        "interventions": list(design.interventions),
    }
    manifest = {"spec": spec, "factors": [*design.factors, "seed"], "cells": cells, "contrasts": []}
    write_manifest(root, design.name, manifest | PROVENANCE)
    return root


def _examples(design: Design) -> tuple[list[str], list[str]]:
    gold = np.random.default_rng(0).choice(LABELS, design.examples)
    return [f"example-{number}" for number in range(design.examples)], [str(label) for label in gold]


def _train(
    writer: StoreWriter, ledger: Ledger, key: str, design: Design, shift: int, rng: np.random.Generator
) -> None:
    family = Family(
        "train",
        [Coordinate("step", "step", list(range(1, design.steps + 1)), long_name="optimizer step")],
        [
            Variable("loss", ("step",), "float32", "nat", "training loss"),
            Variable("learning_rate", ("step",), "float32", "1", "learning rate"),
        ],
    )
    decay = np.exp(-np.arange(design.steps) / (design.steps / 3))
    loss = 0.4 + 0.2 * shift + 2 * decay + 0.05 * rng.normal(size=design.steps)
    with writer.cell(family, key) as rows:
        rows.append({"loss": loss, "learning_rate": 1e-4 * decay})
    ledger.commit("train", key, {"family": family.key, "summary": {"train_loss": float(loss.mean())}})


def _evaluate(
    writer: StoreWriter, ledger: Ledger, key: str, design: Design, shift: int, rng: np.random.Generator
) -> None:
    ids, gold = _examples(design)
    texts = ("generated_label", "generated_text") if design.generates else ()
    family = Family(
        "evaluate",
        [
            Coordinate("example", "example", ids, long_name="test example"),
            Coordinate("gold", "example", gold, long_name="true label"),
            Coordinate("label", "label", LABELS, long_name="label"),
            *counterfactual_coordinates(design.counterfactuals),
        ],
        [
            *counterfactual_variables(design.counterfactuals),
            Variable("prediction", ("example",), "string", "", "label of the highest log-likelihood"),
            Variable("label_logprob", ("example", "label"), "float32", "nat", "log-likelihood"),
            *(Variable(name, ("example",), "string", "", name) for name in texts),
        ],
    )
    truth = np.array([LABELS.index(label) for label in gold])
    scores = rng.normal(size=(design.examples, 5)) + (0.6 + 0.5 * shift) * np.eye(5)[truth]
    logprob = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    guess = np.array([LABELS[best] for best in logprob.argmax(axis=1)], object)
    batch: dict[str, Any] = {"prediction": guess, "label_logprob": logprob.astype(np.float32)}
    if design.generates:
        said = np.array([f"{label} because {WORDS[n % 12]}" for n, label in enumerate(guess)], object)
        batch |= {"generated_label": guess, "generated_text": said}
    if design.counterfactuals:
        argued = rng.choice(LABELS, (design.examples, len(design.counterfactuals))).astype(object)
        behind = rng.normal(size=(*argued.shape, 5)) + 2 * (argued[..., None] == np.array(LABELS))
        batch |= {
            "argued_label": argued,
            "counterfactual_explanation": argued,
            "counterfactual_prediction": np.array(LABELS, object)[behind.argmax(axis=2)],
            "counterfactual_logprob": log_softmax(behind, axis=2).astype(np.float32),
        }
    with writer.cell(family, key) as rows:
        rows.append(batch)
    distance = np.abs(logprob.argmax(axis=1) - truth)
    summary = {
        "accuracy": float(np.mean(distance == 0)),
        "macro_f1": float(np.mean(distance == 0)) * 0.9,
        "mae": float(distance.mean()),
        "qwk": float(1 - distance.mean() / 2),
        "ece": 0.1 + 0.01 * shift,
    }
    ledger.commit("evaluate", key, {"family": family.key, "summary": summary})


def _probe(
    writer: StoreWriter,
    ledger: Ledger,
    key: str,
    design: Design,
    shift: int,
    rng: np.random.Generator,
    vocabulary: str,
) -> None:
    ids, gold = _examples(design)
    axes = ("example", "layer", "position")
    nat = ("entropy", "kl_final", "js_final", "watch_entropy")
    family = Family(
        "probe",
        [
            Coordinate("example", "example", ids, long_name="test example"),
            Coordinate("gold", "example", gold, long_name="true label"),
            Coordinate("layer", "layer", list(range(design.layers)), long_name="layer, 0 = embedding"),
            Coordinate("position", "position", list(design.positions), long_name="watch position"),
            Coordinate("watch", "watch", LABELS, long_name="watched text"),
            Coordinate("watch_id", "watch", list(range(5)), long_name="token id of its first token"),
            Coordinate("top", "top", list(range(5)), long_name="place, 0 = top"),
        ],
        [
            *(Variable(name, axes, "float32", "nat", name.replace("_", " ")) for name in nat),
            Variable("max_prob", axes, "float32", "1", "probability of the most likely token"),
            Variable("watch_mass", axes, "float32", "1", "probability on the watched tokens"),
            Variable("watch_logprob", (*axes, "watch"), "float32", "nat", "log-probability"),
            Variable("watch_rank", (*axes, "watch"), "int32", "1", "rank in the vocabulary, 0 = top"),
            Variable("top_logprob", (*axes, "top"), "float32", "nat", "log-probability"),
            Variable("top_id", (*axes, "top"), "int32", "1", "token id"),
        ],
    )
    shape = (design.examples, design.layers, len(design.positions))
    depth = np.arange(design.layers)[:, None] / max(1, design.layers - 1)
    noise = rng.normal(size=shape)
    entropy = np.clip(
        9 * (1 - depth**2) + 1.2 * shift * np.exp(-40 * (depth - 0.6) ** 2) + 0.3 * noise, 0, None
    )
    top = np.clip(depth**2 * 0.99 + 0.03 * noise, 1e-3, 0.999)
    words = len(design.vocabulary)
    final = np.array([LABELS.index(label) for label in gold])[:, None, None]
    top_id = rng.integers(0, words, size=(*shape, 5))
    top_id[..., 0] = np.where(np.broadcast_to(depth > 0.7, shape), final % words, top_id[..., 0])
    others = np.sort(rng.dirichlet(np.ones(4), size=shape), axis=-1)[..., ::-1]
    top_prob = np.concatenate([top[..., None], np.minimum(top, 1 - top)[..., None] * others], axis=-1)
    rank = rng.integers(0, 40000, size=(*shape, 5)) * (1 - depth[..., None]) ** 3
    batch = {
        "entropy": entropy,
        "kl_final": entropy * 0.8,
        "js_final": 0.5 * (1 - depth) + 0 * entropy,
        "watch_entropy": 1 + 0 * entropy,
        "max_prob": top,
        "watch_mass": top * 0.8,
        "watch_logprob": np.log(np.repeat(top[..., None], 5, -1) / (2 + np.arange(5))),
        "watch_rank": rank.astype(np.int32),
        "top_logprob": np.log(top_prob),
        "top_id": top_id.astype(np.int32),
    }
    with writer.cell(family, key) as rows:
        rows.append({name: v if v.dtype.kind == "i" else v.astype(np.float32) for name, v in batch.items()})
    attributes = {"backend": "c"} | ({"vocabulary": vocabulary} if vocabulary else {})
    ledger.commit("probe", key, {"family": family.key, "summary": {}, "attributes": attributes})


def _lens(writer: StoreWriter, ledger: Ledger, key: str, design: Design, rng: np.random.Generator) -> None:
    from engine.stages.tuned_lens import lens_family

    family = lens_family(design.steps, design.layers - 1)
    depth = np.arange(design.layers - 1) / (design.layers - 1)
    left = 0.3 + 0.7 * np.exp(-np.arange(design.steps) / (design.steps / 4))
    curve = (7 * (1 - depth**2) * left[:, None] + 0.1 * rng.random((design.steps, 1))).astype(np.float32)
    with writer.cell(family, key) as rows:
        rows.append({"translator_kl": curve})
    summary = {"lens_kl": float(curve[-1].mean()), "lens_kl_untrained": float(curve[0].mean())}
    ledger.commit("lens", key, {"family": family.key, "summary": summary})


def _intervene(
    writer: StoreWriter, ledger: Ledger, key: str, design: Design, shift: int, rng: np.random.Generator
) -> None:
    """Let the layers in the middle carry most of what the adapter adds to the true label's log-odds."""
    from engine.planning.changes import Entry, ModelShape
    from engine.planning.sweeps import expand
    from engine.stages.interventions.layout import intervention_family, takes_from_others
    from specs.tables.interventions import Intervention

    blocks = design.layers - 1
    ids, gold = _examples(design)
    settings = [Intervention(**own) for own in design.interventions]
    entries = [
        Entry(own, "", "own, another label", own.reads) if own.takes_own else Entry(own, "", "base")
        for own in settings
    ]
    changes = expand(entries, ModelShape(blocks, design.heads))
    rows = [{"id": name, "label": label} for name, label in zip(ids, gold, strict=True)]
    family = intervention_family(rows, changes, blocks, LABELS)
    depth = np.arange(1, blocks + 1) / blocks
    carried = np.exp(-30 * (depth - 0.6) ** 2)
    carried *= (1 + shift) / carried.sum()
    taken = np.array(
        [
            1 + shift if change.kind == "source" else sum(carried[n - 1] for n in change.layers)
            for change in changes
        ]
    )
    taken *= [1 / design.heads if change.heads else 1 for change in changes]
    for place, change in enumerate(changes):
        if change.addition:  # the donor is the model without what the layers bring
            factor = 1.5 * change.addition.strength if change.addition.draw is None else 0.1
            taken[place] = 1 + shift - factor * taken[place]
    taken *= [0.3 if change.position not in ("", "prompt_end") else 1 for change in changes]
    truth = np.eye(5)[[LABELS.index(label) for label in gold]]
    scores = 1.5 * rng.normal(size=(design.examples, 1, 5)) + truth[:, None] * (1 + shift - taken[:, None])
    scores += 0.2 * rng.normal(size=scores.shape)
    logprob = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    lowest = np.array([min(change.layers, default=design.layers) for change in changes])
    behind = np.arange(design.layers) >= lowest[:, None]
    entropy = 3 + 0.3 * behind * taken[:, None] + 0.1 * rng.normal(size=(design.examples, *behind.shape))
    batch = {
        "prediction": np.array(LABELS, object)[logprob.argmax(axis=-1)],
        "label_logprob": logprob.astype(np.float32),
        "entropy": entropy.astype(np.float32),
    }
    if takes_from_others(changes):
        shifted = [LABELS[(LABELS.index(label) + 1) % len(LABELS)] for label in gold]
        others = [[label if change.input != "same" else "" for change in changes] for label in shifted]
        batch["other_label"] = np.array(others, object)
    with writer.cell(family, key) as rows_written:
        rows_written.append(batch)
    ledger.commit("intervene", key, {"family": family.key, "summary": {}})
