"""One unit of work on several processes of this machine, started and watched by torchrun's own launcher."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attrs import frozen

from engine.errors import Interrupted, LostRankError, UsageError
from engine.progress import StopRequest
from engine.running.executors.base import Job, Work
from engine.running.executors.imports import same_packages
from engine.running.executors.rank import serve
from engine.running.outcome import Outcome

_TICK = 0.2  # seconds between looks at the ranks
_IMPORTS = ["engine.running.executors.worker", "torch.distributed.fsdp", "peft"]
_UNSAID = "<N/A>"  # torchrun's name of the file in which a rank has left no error


@frozen
class Launcher:
    """Runs units of one job, each on `ranks` processes that end with it."""

    job: Job
    stop: StopRequest

    def run(self, work: Work) -> Outcome:
        """Run a unit. Interrupted after a stop request, LostRankError when a process died or failed alone."""
        with tempfile.TemporaryDirectory(prefix="ablation-engine-") as folder:
            context = self._start(work, Path(folder))
            try:
                while (result := context.wait(_TICK, _TICK)) is None:
                    self.stop.check()
            except KeyboardInterrupt:  # the second: no time to save
                raise
            except BaseException:
                self._stop(context)
                raise
            finally:
                context.close(signal.SIGKILL)
        self.stop.check()
        for failure in result.failures.values():  # of the rank that failed first
            text = failure.message
            text = text["message"] if isinstance(text, dict) else text
            if failure.error_file == _UNSAID and failure.exitcode >= 0:
                text = f"exit code {failure.exitcode} and no recorded error; its error output may say why"
            raise LostRankError(f"rank {failure.local_rank} of {self.job.ranks}: {text}")
        outcome: Outcome | None = result.return_values[0]
        if outcome is None:
            raise Interrupted
        return outcome

    def _stop(self, context: Any) -> None:
        """Ask all ranks to save and end, and wait for that at most the grace."""
        for pid in context.pids().values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        context.wait(self.job.grace, _TICK)

    def _start(self, work: Work, folder: Path) -> Any:
        import torch
        from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std, start_processes

        logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # errors are told below
        ranks, gpus = range(self.job.ranks), self._gpus()
        threads = max(1, torch.get_num_threads() // self.job.ranks)
        multiprocessing.set_forkserver_preload(_IMPORTS)
        unit = pickle.dumps((self.job, work))  # by hand, so that a rank can say why it cannot read it
        with _own_signals(), same_packages():
            return start_processes(
                "unit",
                serve,
                args={rank: (unit, rank, str(folder / "meeting"), threads) for rank in ranks},
                envs={rank: {"CUDA_VISIBLE_DEVICES": gpus[rank]} if gpus else {} for rank in ranks},
                logs_specs=DefaultLogsSpecs(
                    str(folder), redirects={rank: Std.ALL if rank else Std.NONE for rank in ranks}
                ),
                start_method="forkserver",  # which has imported all that they need once
            )

    def _gpus(self) -> list[str]:
        gpus = visible_gpus()
        if gpus and len(gpus) < self.job.ranks:
            raise UsageError(
                f"executor.ranks: found {self.job.ranks}, but a unit of work sees {len(gpus)} GPUs here; "
                "expected no more ranks than GPUs"
            )
        return gpus


def visible_gpus() -> list[str]:
    """Name the GPUs that this process may use, as CUDA_VISIBLE_DEVICES does."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return visible.split(",")[:count] if visible else [str(number) for number in range(count)]


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's signal handlers, in whose place the launcher puts its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
