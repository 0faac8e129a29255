"""The stages of tasks of lm-evaluation-harness: on a cell's model, and once on the one without adapter.

The harness is imported where it is needed alone. It asks as it does by default, so that its numbers compare
with those of others.
"""

from __future__ import annotations

import copy
import logging
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch

from engine.errors import DataError, UsageError
from engine.models.base_model import BaseModel
from engine.models.causal_lm import CausalLm
from engine.models.tokenizer import Tokenizer
from engine.planning.plan import PlannedCell
from engine.progress import Report
from engine.stages.context import Context
from engine.stages.harness_scores import KEY, Results, harness_scores
from engine.stages.task_scores import TaskScores, store_scores
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
) -> Results | None:
    """Run the tasks on a model; None in processes that the harness leaves without results.

    before_pass: called before each forward pass. Neither the model, nor the tokenizer, nor any source of
    random numbers is changed.
    """
    check_tasks(settings)
    manager = _manager(settings.task_folder)
    with _quiet(), _undisturbed(), _as_harness_model(model, before_pass):
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        asked = HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=settings.batch_size)
        try:
            results: Results | None = simple_evaluate(
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
    return results


@contextmanager
def _as_harness_model(model: CausalLm, before_pass: Callable[[], None]) -> Iterator[None]:
    """Let a model go through the harness as it is.

    The harness ties its weights, as if it had been loaded just now. A head or embeddings that were trained in
    full are not tied any more.
    """
    model.tie_weights = lambda *_, **__: None  # type: ignore[method-assign]
    handle = model.register_forward_pre_hook(lambda *_: before_pass())
    try:
        yield
    finally:
        handle.remove()
        del model.tie_weights


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Give sources of random numbers back as they were: the harness seeds them all."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])


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
        if known is None:
            del os.environ[flag]


def run(context: Context, cell: PlannedCell, model: CausalLm, base: BaseModel, _report: Report) -> None:
    """Ask the cell's model."""
    _run(context, cell, "tasks", model, base, "")


def run_untrained(
    context: Context, cell: PlannedCell, model: CausalLm, base: BaseModel, _report: Report
) -> None:
    """Ask the model without adapter, once for all cells that start from it."""
    _run(context, cell, "base_tasks", model, base, "base_")


def _run(
    context: Context, cell: PlannedCell, stage: str, model: CausalLm, base: BaseModel, prefix: str
) -> None:
    settings, key = context.settings("evaluate", cell), cell.keys[stage]
    with context.committing(stage, key, base) as record:
        claim = context.claim(stage, key)

        def before_pass() -> None:
            claim.check()
            context.stop.check()

        results = ask(model, base.tokenizer, settings, before_pass)
        scores = context.ranks.lead(
            lambda: harness_scores(results, settings.tasks) if results else TaskScores({}, {})
        )
        record |= store_scores(context, stage, key, scores, prefix)
