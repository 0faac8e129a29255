"""LoRA training of a model with the shapes of Llama-3.2-1B, and a training that is stopped and goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.device.models import engine, make_model, make_rated, watching_stages
from benchmarks.device.record import NotHereError, Recorder

LLAMA_1B = {
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": True,
}  # fmt: skip
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SPEC = """
name = "training"
seeds = [0]

[model]
id = "{model}"
dtype = "{dtype}"

[data]
source = "{data}"
columns = {{ label = "rating", explanation = "why" }}

[prompt]
chat_template = false
template = "{{context}} {{response}}:"

[target]
content = "label+explanation"

[lora]
r = 16

[train]
steps = {steps}
batch_size = {batch}
max_length = 2048
precision = "{dtype}"

[evaluate]
labels = ["1", "2", "3"]

[probe]
examples = 16
"""


def run(record: Recorder) -> None:
    """Train a model of 1B in bfloat16: plainly, checkpointed, with 4-bit weights, more at once, compiled."""
    device, folder = record.device, record.folder
    words, rows, steps, batch = (20, 60, 4, 2) if record.tiny else (420, 400, 24, 8)
    dtype = torch.float32 if record.tiny else torch.bfloat16
    with record.item("make the model") as values:
        model = make_model(folder / "model", device, dtype, **(SMALL if record.tiny else LLAMA_1B))
        values["parameters, 1e6"] = (
            sum(f.stat().st_size for f in model.glob("*.safetensors")) / dtype.itemsize / 1e6
        )
    if device.type == "cuda":
        torch.cuda.empty_cache()
    data = make_rated(folder / "rated.jsonl", rows, words)
    spec = folder / "training.toml"
    name = str(dtype).removeprefix("torch.")
    spec.write_text(SPEC.format(model=model, data=data, steps=steps, batch=batch, dtype=name))
    # Its rows are tokens times layers, of which each meets the whole vocabulary several times.
    tuned = ("--set", "probe.lens=tuned", "--set", f"probe.tuned.steps={2 if record.tiny else 8}")
    tuned += ("--set", "probe.tuned.tokens=512")
    for name, more in (
        ("bfloat16", tuned),
        ("checkpointed", ("--set", "train.gradient_checkpointing=true", "--set", "lora.alpha=31")),
        ("nf4", ("--set", "model.quantization=nf4", "--set", "model.dtype=bfloat16")),
        ("batch of 16", ("--set", f"train.batch_size={4 if record.tiny else 16}")),
        ("compiled", ("--set", "train.compile=true", "--set", "lora.alpha=33")),
    ):
        with record.item(name) as values:
            if name == "nf4":
                _needs_quantization(device)
            values |= _train(
                record,
                spec,
                folder / name.replace(" ", "-"),
                *more,
                "--set",
                f"data.test={4 if record.tiny else 32}",
            )


def _needs_quantization(device: torch.device) -> None:
    if device.type != "cuda":
        raise NotHereError("4-bit weights need a GPU")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise NotHereError(f"no bitsandbytes: {error}") from error


def _train(record: Recorder, spec: Path, store: Path, *more: object) -> dict[str, Any]:
    from engine.planning.estimate import estimate
    from engine.planning.plan import make_plan
    from specs import load_spec, resolve
    from store import Ledger

    plan = make_plan(resolve(load_spec(spec, [str(text) for text in more if text != "--set"])), store)
    batch = plan.matrix.table("train", plan.cells[0].choice).batch_size
    costs = estimate(plan) or {}
    with watching_stages(record.device) as stages:
        print(engine("execute", spec, "--store", store, *more).output)
    ledger = Ledger(store)
    (key,) = ledger.done("train")
    summary = ledger.record("train", key)["summary"]
    moments = stages["train"]["moments"]
    tokens = summary["train_tokens"] / summary["train_examples"] * batch
    half = moments[len(moments) // 2 :]  # without what the first steps wait for
    per_step = (half[-1] - half[0]) / max(1, len(half) - 1)
    found: dict[str, Any] = {"tokens per step": tokens, "s per step": per_step, "tokens/s": tokens / per_step}
    found["loss"] = summary["train_loss"]
    for stage, own in stages.items():
        found[f"{stage}, s"] = own["seconds"]
        found[f"{stage}, peak GB"] = own.get("peak bytes", 0) / 1e9
        found[f"{stage}, plan GB"] = costs[stage].memory / 1e9 if stage in costs else None
    return found


def resume(record: Recorder) -> None:
    """Stop a small training by SIGTERM and let it go on: the adapter is that of an undisturbed one."""
    folder = record.folder
    model = make_model(folder / "model", record.device, torch.float32, **SMALL, num_key_value_heads=2)
    data = make_rated(folder / "rated.jsonl", 60, 20)
    spec = folder / "training.toml"
    steps = 30 if record.tiny else 200
    text = SPEC.format(model=model, data=data, steps=steps, batch=4, dtype="float32")
    spec.write_text(text.replace("[lora]", "[lora]\ndropout = 0.2"))
    more = ("--set", "train.checkpoint_every=5", "--set", "data.test=4", "--set", "probe.enabled=false")
    with record.item("stopped by SIGTERM") as values:
        command = [sys.executable, "-c", "from engine.cli.main import main; main()"]
        command += ["execute", str(spec), "--store", str(folder / "stopped"), *more]
        with (folder / "stopped.txt").open("wb") as stream:
            child = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=dict(os.environ))
        deadline = time.monotonic() + 120
        while not list((folder / "stopped").glob("train/*/checkpoints/*/trainer_state.json")):
            if child.poll() is not None or time.monotonic() > deadline:
                break
            time.sleep(0.01)
        child.send_signal(signal.SIGTERM)
        values["exit code"] = child.wait(60)
        values["passed"] = child.returncode == 130
        if child.returncode != 130:
            values["said"] = (folder / "stopped.txt").read_text()[-1500:]
    with record.item("gone on from there, against an undisturbed run") as values:
        engine("execute", spec, "--store", folder / "stopped", *more)
        engine("execute", spec, "--store", folder / "whole", *more)
        values |= _adapter_difference(folder / "stopped", folder / "whole")


def _adapter_difference(left: Path, right: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    (mine,), (yours,) = (list(p.glob("train/*/adapter/adapter_model.safetensors")) for p in (left, right))
    a, b = load_file(mine), load_file(yours)
    gap = max(float((a[name] - b[name]).abs().max()) for name in b)
    size = max(float(tensor.abs().max()) for tensor in b.values())
    same = a.keys() == b.keys()
    return {
        "largest difference": gap,
        "largest entry": size,
        "same bits": gap == 0,
        "passed": same and gap < 1e-3 * size,
    }
