"""What happens between the steps of a training: reports, checkpoints, stops."""

from __future__ import annotations

import time
from typing import Any

from attrs import define
from transformers import TrainerCallback

from engine.progress import Report, StopRequest
from engine.ranks import Ranks


@define
class Reporter(TrainerCallback):
    """Reports each step's loss and speed."""

    report: Report
    tokens: float  # mean per example
    started: float = 0.0
    first_step: int = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: D102 - as in TrainerCallback
        self.started, self.first_step = time.perf_counter(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: D102
        if not logs or "loss" not in logs:
            return
        examples = (state.global_step - self.first_step) * args.train_batch_size
        examples *= args.gradient_accumulation_steps
        speed = self.tokens * examples / (time.perf_counter() - self.started)
        loss = logs["loss"]
        self.report(state.global_step, state.max_steps, f"loss {loss:.3f}, {speed:.0f} tokens/s")


@define
class Saver(TrainerCallback):
    """Saves when it is time to, and saves and stops when asked to."""

    stop: StopRequest
    ranks: Ranks
    seconds: float | None  # from one checkpoint to the next, None where the Trainer counts steps
    last: float = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: D102
        self.last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: D102
        if self.stop.requested:
            control.should_save = True
            control.should_training_stop = True
        elif (seconds := self.seconds) is not None:
            control.should_save = self.ranks.lead(lambda: time.monotonic() - self.last >= seconds)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: D102
        self.last = time.monotonic()
