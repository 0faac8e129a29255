"""One rank of several that share a unit of work.

A process that begins imports this module alone; whatever fails from then on is recorded by the launcher.
"""

from __future__ import annotations

import logging
import pickle
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.running.outcome import Outcome


def serve(unit: bytes, rank: int, meeting: str, threads: int) -> Outcome | None:
    """Run a pickled (Job, Work) as one rank of the job's; None where a stop was requested.

    LostRankError when this rank has failed alone.
    """
    import torch

    from engine.errors import Interrupted, LostRankError
    from engine.process_group.fsdp import AgreedStop, DivergedError, FsdpGroup
    from engine.running.executors.parent import follow_parent
    from engine.running.executors.worker import Worker

    job, work = pickle.loads(unit)
    logging.getLogger("transformers.training_args").addFilter(_tells_no_group)
    torch.set_num_threads(threads)
    team = FsdpGroup.join(rank, job.ranks, meeting)
    stop = AgreedStop(team)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(stop, "requested", True))
    threading.Thread(target=follow_parent, args=(stop, job.grace), daemon=True).start()
    try:
        outcome = Worker.of(job, stop, team).run(work)
    except Interrupted:
        outcome = None
    except DivergedError as error:
        raise LostRankError(str(error)) from error
    team.leave()
    return outcome


def _tells_no_group(record: logging.LogRecord) -> bool:
    """Tell whether a record is not the Trainer's warning of a process group that it does not use."""
    return "process group is initialized" not in record.getMessage()
