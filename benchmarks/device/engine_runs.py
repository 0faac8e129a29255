"""The engine from end to end on the GPU, its numbers held against the CPU's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.device.models import engine, make_model, watching_stages
from benchmarks.device.record import Recorder

PROBED = """
[probe]
positions = ["prompt_end", "label", "completion_end"]
heads = true
activation = true
examples = {probed}

[probe.tuned]
steps = {tuned}
tokens = 512

[factors.lens]
path = "probe.lens"
values = ["logit", "tuned"]

[[interventions]]
name = "off"
kind = "mask"

[[interventions]]
name = "base stream"
kind = "patch"
positions = ["prompt_end"]

[[interventions]]
name = "layers of label"
kind = "graft"
cells = {{ target = "label+explanation" }}
donor = {{ target = "label" }}

[[interventions]]
name = "heads"
kind = "heads"
heads = "all"
ablation = "mean"
"""
SPEC = """
name = "device"
seeds = [0]

[model]
id = "{model}"
dtype = "float32"

[data]
source = "graded-dialogues"
dimension = "comprehensiveness"
train = {train}
test = {test}

[prompt]
chat_template = false
template = "Message: {{context}}\\nReply: {{response}}\\nComprehensiveness, from 1 to 5:"

[lora]
r = 4

[train]
steps = {steps}
batch_size = 4
lr = 1e-3
precision = "float32"

[evaluate]
scoring = ["loglikelihood", "constrained", "generation"]
max_new_tokens = 8

[factors.target.levels]
label = {{ target.content = "label" }}
"label+explanation" = {{ target.content = "label+explanation" }}
"""
TINY = {"train": 8, "test": 3, "steps": 2, "probed": 2, "tuned": 2}
FULL = {"train": 64, "test": 16, "steps": 8, "probed": 12, "tuned": 12}


def run(record: Recorder) -> None:
    """Train on the GPU; then evaluate, probe and intervene there and on the CPU, with the same adapters."""
    sizes = TINY if record.tiny else FULL
    widths = (
        {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
        if record.tiny
        else {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 8, "vocab_size": 4096}
    )
    device, folder = record.device, record.folder
    model = make_model(
        folder / "model", device, torch.float32, num_hidden_layers=2, num_key_value_heads=2, **widths
    )
    here, there = folder / "here", folder / "cpu"
    short, whole = folder / "short.toml", folder / "whole.toml"
    short.write_text(SPEC.format(model=model, **sizes) + "\n[probe]\nenabled = false\n")
    whole.write_text((SPEC + PROBED).format(model=model, **sizes))
    with record.item(f"train and evaluate on {device.type}") as values:
        values |= _watched(record, "execute", short, "--store", here)
    shutil.copytree(here, there, dirs_exist_ok=True)
    other = _on_cpu(folder, "execute", whole, "--store", there)
    with record.item(f"probe, tuned lens, interventions on {device.type}") as values:
        values |= _watched(record, "execute", whole, "--store", here)
    with record.item("the same on the CPU") as values:
        values["exit code"] = other.wait(300)
        values["passed"] = other.returncode == 0
        if other.returncode:
            values["said"] = (folder / "cpu.txt").read_text()[-1500:]
    _compare(record, here, there)
    if not record.tiny:
        with record.item("all in bfloat16") as values:
            more = ("--set", "model.dtype=bfloat16", "--set", "train.precision=bfloat16")
            values |= _watched(record, "execute", whole, *more, "--store", folder / "half")


def _watched(record: Recorder, *arguments: object) -> dict[str, Any]:
    with watching_stages(record.device) as stages:
        said = engine(*arguments).output
    print(said)
    return {f"{stage}, s": own["seconds"] for stage, own in stages.items()}


def _on_cpu(folder: Path, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from engine.cli.main import main; main()", *map(str, arguments)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
    with (folder / "cpu.txt").open("wb") as stream:
        return subprocess.Popen(command, env=environment, stdout=stream, stderr=subprocess.STDOUT)


def _compare(record: Recorder, here: Path, there: Path) -> None:
    """Record the largest difference of every variable of the two stores."""
    with record.item("opening both stores") as values:
        from store import open_store

        left, right = (open_store(path, "device") for path in (here, there))
        pairs = [
            (f"{node.path}/{name}", variable, right[node.path].ds[name])
            for node in left.subtree
            if not node.path.endswith("/summary")
            for name, variable in node.data_vars.items()
            if not str(name).endswith("seconds")
        ]
        values |= {"variables": len(pairs), "passed": bool(pairs)}
    if not values.get("variables"):
        return
    for name, mine, yours in pairs:
        with record.item(name.removeprefix("/device/")) as values:
            a, b = np.asarray(mine.values), np.asarray(yours.values)
            if a.dtype.kind not in "fiub":
                values |= {"largest difference": None, "equal": float((a == b).mean()), "entries": a.size}
            else:
                a, b = a.astype(np.float64), b.astype(np.float64)
                same_nan = bool((np.isnan(a) == np.isnan(b)).all())
                gap = np.nan_to_num(np.abs(a - b))
                values |= {"largest difference": float(gap.max(initial=0)) if same_nan else float("inf")}
                values |= {"equal": float((gap == 0).mean()), "entries": a.size, "passed": same_nan}
