"""The device that a model is loaded on, and GPUs of this machine that torch cannot use."""

from __future__ import annotations

import gc
import os

import torch

from engine.errors import UsageError
from engine.full_memory import Sharing, limit
from engine.models.gpus import all_hidden, nvidia_gpu


def choose_device(wanted: str) -> torch.device:
    """Give the device that `model.device` names; UsageError, with those that there are, where it is not here.

    "cuda" is the first GPU that this process sees, "cuda:1" the second: those that `CUDA_VISIBLE_DEVICES`
    names, or that an executor has dealt out to a worker.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        return torch.device("cuda" if count else "cpu")
    kind, _, number = wanted.partition(":")
    if kind == "cuda" and int(number or 0) >= count:
        gpus = ", ".join(f'"cuda:{index}"' for index in range(count)) or unused_gpu() or "no GPU"
        raise UsageError(
            f'model.device: found "{wanted}", but this process sees {gpus}; expected "auto", "cpu"'
            + (f", or one of these ({_dealt_out()})" if count else "")
        )
    return torch.device(kind, int(number)) if number else torch.device(kind)


def memory_room(device: torch.device, sharing: Sharing) -> float | None:
    """Give the bytes of a device's memory that this process may take; None where that is not known.

    Of a GPU that it has alone, what processes of others hold is left out.
    """
    if device.type == "cpu":
        return limit().size / sharing.processes
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    if sharing.on_gpu > 1:
        return total / sharing.on_gpu
    return min(total, free + torch.cuda.memory_reserved(device))


def free_memory() -> None:
    """Give back what a pass that has failed still holds."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _dealt_out() -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "all of this machine" if visible is None else f"CUDA_VISIBLE_DEVICES is {visible}"


def unused_gpu() -> str | None:
    """Say which GPU this machine has that torch cannot use, and why; None where there is none, or it can.

    One that `CUDA_VISIBLE_DEVICES` hides is left aside on purpose.
    """
    if torch.cuda.is_available() or all_hidden():
        return None
    gpu = nvidia_gpu()
    if gpu is None:
        return None
    if torch.version.cuda is None:
        why = f"torch {torch.__version__} is built without CUDA"
    else:
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
            why = "torch finds no device"
        except (RuntimeError, AssertionError) as error:
            why = str(error).partition("\n")[0].rstrip(".")
    return f"an NVIDIA GPU ({gpu}) that torch cannot use: {why}"
