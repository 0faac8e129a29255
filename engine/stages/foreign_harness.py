"""Lets another harness run a loaded model, and leaves model and process as they were behind it."""

from __future__ import annotations

import logging
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from attrs import define

from engine.models.causal_lm import CausalLm, without_adapter


@define
class Work:
    """What a harness has made a model do."""

    passes: int = 0
    tokens: int = 0
    """Of all passes, padding included."""
    steps: int = 0
    """Passes of one token for each row, as a generation has them behind its first."""

    @property
    def as_json(self) -> dict[str, int]:
        """Give it as values of a record."""
        return {"passes": self.passes, "tokens": self.tokens, "steps": self.steps}

    def add(self, shape: torch.Size) -> None:
        """Take in a pass over ids of a shape, [rows, tokens]."""
        self.passes += 1
        self.tokens += shape.numel()
        self.steps += shape[-1] == 1


@contextmanager
def lent(model: CausalLm, before_pass: Callable[[], None]) -> Iterator[Work]:
    """Lend a model inside the `with` block, and count what it does; nothing ties its weights meanwhile.

    Some harnesses tie them, as if the model had been loaded just now. A head or embeddings that were trained
    in full are not tied any more. before_pass: called before each forward pass, with an adapter or without.
    """
    work = Work()

    def note(_module: Any, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> None:
        before_pass()
        ids = options.get("input_ids", arguments[0] if arguments else None)
        work.add(ids.shape if ids is not None else options["inputs_embeds"].shape[:-1])

    model.tie_weights = lambda *_, **__: None  # type: ignore[method-assign]
    handle = without_adapter(model).register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield work
    finally:
        handle.remove()
        del model.tie_weights


@contextmanager
def undisturbed() -> Iterator[None]:
    """Give back what harnesses set in a process: random numbers, environment, folder, paths, logging."""
    states = random.getstate(), np.random.get_state()
    environment, folder, paths, hook = dict(os.environ), os.getcwd(), list(sys.path), sys.excepthook  # noqa: PTH109
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        sys.path[:], sys.excepthook = paths, hook
        root.handlers[:] = handlers
        root.setLevel(level)
