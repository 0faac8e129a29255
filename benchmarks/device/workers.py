"""Two workers on one GPU against one cell after the other."""

from __future__ import annotations

import time

import torch

from benchmarks.device.models import engine, make_model, make_rated
from benchmarks.device.record import Recorder
from benchmarks.device.training import SPEC

SIZES = {
    "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8,
    "num_key_value_heads": 2, "vocab_size": 4096,
}  # fmt: skip
TINY = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
}  # fmt: skip


def run(record: Recorder) -> None:
    """Run the same four cells both ways; the seconds of the trainings and of the whole."""
    from store import Ledger

    folder = record.folder
    model = make_model(folder / "model", record.device, torch.float32, **(TINY if record.tiny else SIZES))
    data = make_rated(folder / "rated.jsonl", 60, 20)
    spec = folder / "workers.toml"
    text = SPEC.format(model=model, data=data, steps=2 if record.tiny else 150, batch=4, dtype="float32")
    spec.write_text(text.replace("seeds = [0]", "seeds = [0, 1]" if record.tiny else "seeds = [0, 1, 2, 3]"))
    shared = ("--set", "data.test=4", "--set", "probe.enabled=false", "--set", "executor.workers_per_gpu=2")
    for name, more in (("one by one", ()), ("two workers", ("--workers", "2"))):
        with record.item(name) as values:
            store = folder / name.replace(" ", "-")
            started = time.perf_counter()
            engine("execute", spec, "--store", store, *shared, *more)
            values["seconds"] = time.perf_counter() - started
            ledger = Ledger(store)
            records = [ledger.record("train", key) for key in ledger.done("train")]
            values["trainings"] = len(records)
            values["first start to last end of a training, s"] = max(
                r["started"] + r["seconds"] for r in records
            ) - min(r["started"] for r in records)
            values["s per training"] = sum(r["seconds"] for r in records) / len(records)
