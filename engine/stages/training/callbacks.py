"""What happens between the steps of a training: reports, checkpoints, stops."""

from __future__ import annotations

import time
from typing import Any

from attrs import define
from transformers import TrainerCallback

from engine.process_group.alone import ProcessGroup
from engine.progress import Report, StopRequest
from engine.stages.training.history import LOSS, TOKENS


@define
class Reporter(TrainerCallback):
    """Reports each step's loss, and the tokens per second that this process has trained on."""

    report: Report
    started: float = 0.0
    tokens: float = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: D102
        self.started = time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: D102
        if not logs or LOSS not in logs:
            return
        self.tokens += logs[TOKENS]
        speed = self.tokens / (time.perf_counter() - self.started)
        self.report(state.global_step, state.max_steps, f"loss {logs[LOSS]:.3f}, {speed:.0f} tokens/s")


@define
class Saver(TrainerCallback):
    """Saves when it is time to, and saves and stops when asked to."""

    stop: StopRequest
    ranks: ProcessGroup
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
