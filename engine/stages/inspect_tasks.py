"""The stages of tasks of Inspect: on a cell's model, and once on the one without adapter.

Inspect is imported where it is needed alone. It asks by its own rules; the model answers as it is loaded.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from engine.errors import DataError, UsageError
from engine.models.base_model import BaseModel
from engine.models.causal_lm import CausalLm
from engine.models.generation_batches import GenerationBatches
from engine.models.tokenizer import Tokenizer
from engine.planning.generation_rows import generation_rows
from engine.planning.inspect_files import KEY
from engine.planning.inspect_tasks import Reference
from engine.planning.plan import PlannedCell
from engine.process_group.alone import ProcessGroup
from engine.progress import Report
from engine.stages.context import Context
from engine.stages.foreign_harness import Work, lent, undisturbed
from engine.stages.inspect_answers import Answering, as_inspect_model
from engine.stages.inspect_scores import inspect_scores
from engine.stages.task_scores import TaskScores, score
from specs.common.spelling import hint
from specs.tables.evaluate import Evaluate
from specs.tables.inspect_tasks import InspectTasks


def check_inspect(settings: InspectTasks, ranks: ProcessGroup) -> None:
    """Raise UsageError for a task that a package lacks, and where several processes share a model."""
    if ranks.size > 1:
        raise UsageError(
            f"{KEY}: found tasks of Inspect with executor.ranks = {ranks.size}, which would have to ask "
            "in step; expected 1"
        )
    for reference in map(Reference.of, settings.tasks):
        if reference.package is not None:
            _check_package(reference)


def _check_package(reference: Reference) -> None:
    with undisturbed():
        from inspect_ai._util.registry import registry_find, registry_info, registry_lookup

        if registry_lookup("task", reference.text) is None:
            tasks = registry_find(lambda info: info.type == "task")
            known = [registry_info(task).name for task in tasks]
            near = hint(reference.text, [name for name in known if "/" in name])
            raise UsageError(f'{KEY}: found "{reference.text}", expected a task of its package{near}')


def ask(
    model: CausalLm, tokenizer: Tokenizer, settings: Evaluate, before_pass: Callable[[], None]
) -> tuple[TaskScores, Work]:
    """Run the tasks on a model; neither it, nor the tokenizer, nor this process's settings are changed.

    before_pass: called before each forward pass. DataError for tasks that cannot be run.
    """
    asked = settings.inspect
    batches = GenerationBatches(generation_rows(settings, 0, None))
    logs = []
    with TemporaryDirectory() as folder, undisturbed(), lent(model, before_pass) as work:
        for reference in asked.tasks:
            random.seed(asked.seed)
            np.random.seed(asked.seed)
            torch.manual_seed(asked.seed)
            answering = Answering(model, tokenizer, batches, asked.seed)
            logs += _run_task(reference, asked, answering, folder)
        return inspect_scores(logs), work  # while the logs are there, which are read when asked for


def _run_task(reference: str, asked: InspectTasks, answering: Answering, folder: str) -> list[Any]:
    """Give the logs of what a reference names; they lie in a folder."""
    import inspect_ai

    options = {} if asked.max_tokens is None else {"max_tokens": asked.max_tokens}
    trouble: Exception | None = None
    logs: list[Any] = []
    try:
        logs = inspect_ai.eval(
            reference,
            as_inspect_model(answering),
            limit=asked.samples,
            log_dir=folder,
            log_level="critical",
            log_realtime=False,
            display="none",
            score_display=False,
            ctl_server=False,
            max_connections=answering.most,
            max_samples=answering.most,
            max_tasks=1,
            seed=asked.seed,
            **options,
        )
    except Exception as error:  # whatever a task's own code raises
        trouble = error
    if answering.failure is not None and not isinstance(answering.failure, DataError):
        raise answering.failure
    failed = [log.error.message if log.error else log.status for log in logs if log.status != "success"]
    if answering.failure or trouble or failed:
        told = answering.failure or trouble or failed[0]
        raise DataError(f"{KEY}: {reference} cannot be run ({told})") from (answering.failure or trouble)
    return logs


def run(context: Context, cell: PlannedCell, model: CausalLm, base: BaseModel, _report: Report) -> None:
    """Ask the cell's model."""
    check_inspect(context.settings("evaluate", cell).inspect, context.ranks)
    score(context, cell, "inspect", model, base, ask)


def run_untrained(
    context: Context, cell: PlannedCell, model: CausalLm, base: BaseModel, _report: Report
) -> None:
    """Ask the model without adapter, once for all cells that start from it."""
    check_inspect(context.settings("evaluate", cell).inspect, context.ranks)
    score(context, cell, "base_inspect", model, base, ask)
