"""The stages of tasks of lm-evaluation-harness: on a cell's model, and once on the one without adapter.

The harness is imported where it is needed alone. It asks as it does by default, so that its numbers compare
with those of others.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from engine.errors import DataError, UsageError
from engine.models.base_model import BaseModel
from engine.models.causal_lm import CausalLm
from engine.models.tokenizer import Tokenizer
from engine.planning.plan import PlannedCell
from engine.progress import Report
from engine.stages.context import Context
from engine.stages.foreign_harness import Work, lent, undisturbed
from engine.stages.harness_scores import KEY, harness_scores
from engine.stages.task_scores import TaskScores, score
from specs.common.spelling import hint
from specs.tables.evaluate import Evaluate

BOOTSTRAPS = 1000  # draws for the standard errors of metrics that are no means


def check_tasks(settings: Evaluate) -> None:
    """Raise UsageError for a task that the harness does not know."""
    manager = _manager(settings.task_folder)
    for name in settings.tasks:
        if not manager.match_tasks([name]):
            at = f" or {settings.task_folder}" if settings.task_folder else ""
            near = hint(name, manager.all_tasks)
            raise UsageError(f'{KEY}: found "{name}", expected a task of lm-evaluation-harness{at}{near}')


@cache
def _manager(folder: str | None) -> Any:
    """Give the harness's list of tasks, with those of a folder; it takes seconds to read."""
    with _quiet():
        from lm_eval.tasks import TaskManager

        return TaskManager(include_path=folder)


def ask(
    model: CausalLm, tokenizer: Tokenizer, settings: Evaluate, before_pass: Callable[[], None]
) -> tuple[TaskScores, Work]:
    """Run the tasks on a model; neither it, nor the tokenizer, nor this process's settings are changed.

    before_pass: called before each forward pass. DataError for tasks that cannot be run. Processes that the
    harness leaves without results get no scores.
    """
    check_tasks(settings)
    manager = _manager(settings.task_folder)
    with undisturbed(), _quiet(), lent(model, before_pass) as work:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        asked = HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=settings.batch_size)
        try:
            results = simple_evaluate(
                model=asked,
                tasks=settings.tasks,
                num_fewshot=settings.task_shots,
                limit=settings.task_examples,
                task_manager=manager,
                log_samples=True,
                bootstrap_iters=BOOTSTRAPS,
            )
        except (OSError, ValueError) as error:  # data sets that cannot be had, tasks that run code
            names = ", ".join(settings.tasks)
            raise DataError(f"{KEY}: {names} cannot be run ({error})") from error
    return harness_scores(results, settings.tasks) if results else TaskScores({}, {}), work


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the harness's progress bars and warnings off the terminal, and its bootstraps in this process."""
    from tqdm import tqdm

    begin, flag = tqdm.__init__, "DISABLE_MULTIPROC"
    logger, known = logging.getLogger("lm_eval"), os.environ.get(flag)
    level = logger.level
    logger.setLevel(logging.ERROR)
    os.environ[flag] = "1"
    tqdm.__init__ = lambda bar, *values, **options: begin(bar, *values, **options | {"disable": True})
    try:
        yield
    finally:
        tqdm.__init__ = begin
        logger.setLevel(level)
        os.environ.pop(flag)
        os.environ.update({} if known is None else {flag: known})


def run(context: Context, cell: PlannedCell, model: CausalLm, base: BaseModel, _report: Report) -> None:
    """Ask the cell's model."""
    score(context, cell, "tasks", model, base, ask)


def run_untrained(
    context: Context, cell: PlannedCell, model: CausalLm, base: BaseModel, _report: Report
) -> None:
    """Ask the model without adapter, once for all cells that start from it."""
    score(context, cell, "base_tasks", model, base, ask)
