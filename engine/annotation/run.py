"""One call of `engine annotate`: ask what is missing, merge, write the output, show the tables."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engine.annotation import report
from engine.annotation.answers import Answer, AnswerLog, log_path, open_log, read_answers
from engine.annotation.asking import Asked, Asking
from engine.annotation.costs import cost, costs_table, merging_to_come
from engine.annotation.golden import Comparison, merge_of
from engine.annotation.merge import Merge
from engine.annotation.questions import MergeQuestion, Row
from engine.annotation.ratings import (
    Annotation,
    Ratings,
    annotation,
    merger,
    outcome,
    raters,
    rating_questions,
)
from engine.annotation.sources import Golden, Job
from engine.errors import DataError, Interrupted
from specs.annotate import Annotate

Merged = dict[int, dict[str, Annotation]]  # conversation → dimension


@frozen
class Work:
    """A job with its conversations read."""

    job: Job
    rows: Sequence[Row]
    golden: Sequence[Golden]

    @staticmethod
    def of(job: Job) -> Work:
        """Read source and golden set."""
        rows = job.rows()
        if not rows:
            raise DataError(f'data.source: "{job.data.source}" holds no conversations; expected at least one')
        return Work(job, rows, job.golden(rows))

    def asked_about(self) -> list[Row]:
        """Give every conversation that is rated, the golden ones too; what occurs twice is asked once."""
        every = (*self.rows, *(golden.row for golden in self.golden))
        return list({(row["context"], row["response"]): row for row in reversed(every)}.values())[::-1]

    def ratings(self, answers: Mapping[str, Answer]) -> tuple[Ratings, Comparison]:
        """Read what is known of the conversations, and of the golden set beside its true ratings."""
        settings, rows = self.job.settings, [golden.row for golden in self.golden]
        compared = Comparison(Ratings.of(settings, rows, answers), self.golden)
        return Ratings.of(settings, self.rows, answers), compared


def show_plan(job: Job, console: Console) -> None:
    """Show how many requests are due, and what they will cost; nothing is asked or written."""
    work, settings = Work.of(job), job.settings
    answers, rows = read_answers(log_path(job.output)), work.asked_about()
    costs = [
        cost(one.name, one, rating_questions(settings, rows, [one]), settings, answers)
        for one in settings.annotators
    ]
    if settings.explanations == "model" and len(raters(settings)) > 1:
        name = f"{merger(settings).name}, merging"
        if any(one.due for one in costs):  # what is merged hangs on ratings to come
            costs.append(merging_to_come(name, settings, work.rows, answers))
        else:
            ratings, comparison = work.ratings(answers)
            questions = _questions(_merged(ratings, merge_of(comparison)))
            costs.append(cost(name, merger(settings), questions, settings, answers))
    console.print(
        f"{len(work.rows):,} conversations → {job.output}", markup=False, highlight=False, soft_wrap=True
    )
    console.print(costs_table(costs))


def show_report(job: Job, console: Console) -> None:
    """Show the tables of the answers that there are; nothing is asked or written."""
    answers = read_answers(log_path(job.output))
    ratings, comparison = Work.of(job).ratings(answers)
    for table in report.tables(ratings, comparison, _merge_in_use(ratings, comparison), answers):
        console.print(table)


def run(job: Job, console: Console) -> int:
    """Ask, merge and write; give the exit code: 1 where questions are left or nothing could be written."""
    work, settings = Work.of(job), job.settings
    with open_log(log_path(job.output)) as log:
        try:
            rows = work.asked_about()
            total = len(rows) * len(settings.dimensions) * len(settings.strategies)
            asked: list[Asked] = [(x, rating_questions(settings, rows, [x])) for x in settings.annotators]
            asking = [_ask(log, settings, asked, total, console)]
            ratings, comparison = work.ratings(log.answers)
            how = _merge_in_use(ratings, comparison)
            written = None
            if how is not None:
                merged = _merged(ratings, how)
                if questions := _questions(merged):
                    asked = [(merger(settings), iter(questions))]
                    asking.append(_ask(log, settings, asked, len(questions), console))
                if all(outcome(question, log.answers, settings).settled for question in questions):
                    lines = list(_lines(ratings, merged, log.answers))
                    _write(job.output, lines)
                    written = len(lines)
        except KeyboardInterrupt:
            console.print("Stopped. Every answer is kept; the same command goes on from here.")
            raise Interrupted from None
        for table in report.tables(ratings, comparison, how, log.answers):
            console.print(table)
    _say_what_went_wrong(asking, console)
    if written is None:
        console.print(f"Questions are left, so {job.output} is not written; the same command asks them again")
        return 1
    console.print(
        f"{written:,} of {len(work.rows):,} conversations written to {job.output}; "
        f"{len(work.rows) - written:,} left out for want of valid answers",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    return 0 if written else 1


def _merge_in_use(ratings: Ratings, comparison: Comparison) -> Merge | None:
    """Give the merge, or None while ratings are due: one more answer could change every merged rating."""
    return merge_of(comparison) if ratings.settled and comparison.ratings.settled else None


def _merged(ratings: Ratings, how: Merge) -> Merged:
    """Merge the answers of every conversation that has enough of them."""
    return {
        index: {name: annotation(ratings, name, index, how) for name in ratings.settings.dimensions}
        for index in ratings.complete()
    }


def _questions(merged: Merged) -> list[MergeQuestion]:
    explanations = (one.explanation for by_dimension in merged.values() for one in by_dimension.values())
    return [text for text in explanations if isinstance(text, MergeQuestion)]


def _lines(ratings: Ratings, merged: Merged, answers: Mapping[str, Answer]) -> Iterator[dict[str, Any]]:
    """Yield the lines of the output: conversations with a label and an explanation in every dimension."""
    for index, by_dimension in merged.items():
        line = _line(ratings.rows[index], by_dimension, answers, ratings.settings)
        if line is not None:
            yield line


def _line(
    row: Row, merged: Mapping[str, Annotation], answers: Mapping[str, Answer], settings: Annotate
) -> dict[str, Any] | None:
    """Give a line of the output; None where no valid explanation could be had."""
    line: dict[str, Any] = dict(row)
    for dimension, one in merged.items():
        text = one.explanation
        if isinstance(text, MergeQuestion):
            reading = outcome(text, answers, settings).reading
            if reading is None:
                return None
            text = reading.explanation
        line |= {
            dimension: one.label,
            f"{dimension}_mean": float(one.mean),
            f"{dimension}_explanation": text,
            f"{dimension}_answers": one.answers,
        }
    return line


def _write(output: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Replace the output as a whole."""
    partial = output.with_name(f"{output.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(output)


def _ask(log: AnswerLog, settings: Annotate, asked: Sequence[Asked], total: int, console: Console) -> Asking:
    """Ask under progress bars, one per annotator; `total` questions each."""
    bars = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, disable=not console.is_terminal,
    )  # fmt: skip
    with bars:
        tasks = {annotator.name: bars.add_task(annotator.name, total=total) for annotator, _ in asked}
        asking = Asking(log, settings.attempts, lambda name: bars.advance(tasks[name]))
        asking.ask(asked)
    return asking


def _say_what_went_wrong(rounds: Sequence[Asking], console: Console) -> None:
    for name, count in sum((asking.asked for asking in rounds), Counter[str]()).items():
        console.print(f"{name}: {count:,} requests answered", markup=False, highlight=False)
    for asking in rounds:
        for (name, fault), count in asking.unanswered.items():
            console.print(f"{name}: {count:,} questions unanswered ({fault})", markup=False, style="red")
        for error in asking.stopped:
            console.print(f"stopped: {error}", markup=False, style="red", soft_wrap=True)
