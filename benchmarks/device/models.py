"""Random models, data and specs, made on the machine; and the engine run on them in this process."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch


def _from_the_tests(name: str) -> Any:
    """Load a module that the tests share; other packages, too, are called `tests`."""
    file = Path(__file__).parents[2] / "tests" / "support" / f"{name}.py"
    spec = spec_from_file_location(f"engine_tests_{name}", file)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


engine = _from_the_tests("commands").engine
_SMALL_STUDY = _from_the_tests("small_study")
WORDS, make_tokenizer = _SMALL_STUDY.WORDS, _SMALL_STUDY.make_tokenizer


def make_model(folder: Path, device: torch.device, dtype: torch.dtype, **sizes: Any) -> Path:
    """Save a random-weight Llama with a small tokenizer; the weights are drawn on the device."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    defaults = {"vocab_size": 320, "bos_token_id": 0, "eos_token_id": 1, "max_position_embeddings": 2048}
    config = LlamaConfig(**(defaults | sizes))
    with torch.device(device):
        model = LlamaForCausalLM(config).to(dtype)
    model.save_pretrained(folder)
    make_tokenizer(folder)
    return folder


def make_rated(file: Path, rows: int, words: int) -> Path:
    """Write rated replies of so many words each."""
    draw = random.Random(0)
    with file.open("w", encoding="utf-8") as lines:
        for number in range(rows):
            row = {
                "context": f"message {number}",
                "response": " ".join(draw.choices(WORDS, k=words)),
                "rating": str(1 + number % 3),
                "why": f"because {' '.join(draw.choices(WORDS, k=6))}",
            }
            lines.write(json.dumps(row) + "\n")
    return file


@contextmanager
def watching_stages(device: torch.device) -> Iterator[dict[str, dict[str, Any]]]:
    """Yield a dict that fills, per stage that runs here, with seconds, peak bytes and moments of steps."""
    from engine.stages.cell_stages import Stages

    found: dict[str, dict[str, Any]] = {}
    methods = {"train": Stages.train, "measure": Stages.measure}

    def watched(method: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def stage_run(*given: Any, **named: Any) -> Any:
            *others, report = given  # of every stage the report comes last of those without a name
            stage = "train" if method == "train" else others[1]
            moments: list[float] = []

            def timed(*said: Any) -> None:
                moments.append(time.perf_counter())
                report(*said)

            if device.type == "cuda":
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            started = time.perf_counter()
            try:
                return run(*others, timed, **named)
            finally:
                own: dict[str, Any] = {"seconds": time.perf_counter() - started, "moments": moments}
                if device.type == "cuda":
                    own["peak bytes"] = torch.cuda.max_memory_allocated()
                found[stage] = own

        return stage_run

    try:
        for method, run in methods.items():
            setattr(Stages, method, watched(method, run))
        yield found
    finally:
        for method, run in methods.items():
            setattr(Stages, method, run)
