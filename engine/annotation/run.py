"""One call of `engine annotate`: ask what is missing, merge, write the output, show the tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from attrs import frozen
from rich.console import Console

from engine.annotation import report
from engine.annotation.answers import AnswerLog, LoggedAnswer, log_path, open_log, read_answers
from engine.annotation.asking import Asked, Asking
from engine.annotation.costs import cost, costs_table, merging_to_come
from engine.annotation.golden import GoldenComparison, merge_of
from engine.annotation.merge import Merge
from engine.annotation.output import merge_all, merge_questions, output_lines, write_lines
from engine.annotation.questions import Row
from engine.annotation.ratings import Ratings, merger, outcome, raters, rating_questions
from engine.annotation.sources import AnnotationJob, Golden
from engine.data.row_checks import KINDS
from engine.errors import DataError, Interrupted
from engine.terminal import progress
from specs.tables.annotate import Annotate


@frozen
class AnnotationWork:
    """A job with its conversations read."""

    job: AnnotationJob
    rows: Sequence[Row]
    golden: Sequence[Golden]
    dropped: Counter[str]

    @staticmethod
    def of(job: AnnotationJob) -> AnnotationWork:
        """Read source and golden set."""
        dropped: Counter[str] = Counter()
        rows = job.rows(dropped)
        if not rows:
            raise DataError(f'data.source: "{job.data.source}" holds no conversations; expected at least one')
        return AnnotationWork(job, rows, job.golden(rows), dropped)

    def asked_about(self) -> list[Row]:
        """Give every conversation that is rated, the golden ones too; what occurs twice is asked once."""
        every = (*self.rows, *(golden.row for golden in self.golden))
        return list({(row["context"], row["response"]): row for row in reversed(every)}.values())[::-1]

    def ratings(self, answers: Mapping[str, LoggedAnswer]) -> tuple[Ratings, GoldenComparison]:
        """Read what is known of the conversations, and of the golden set beside its true ratings."""
        settings, rows = self.job.settings, [golden.row for golden in self.golden]
        compared = GoldenComparison(Ratings.of(settings, rows, answers), self.golden)
        return Ratings.of(settings, self.rows, answers), compared


def show_plan(job: AnnotationJob, console: Console) -> None:
    """Show how many requests are due, and what they will cost; nothing is asked or written."""
    work, settings = AnnotationWork.of(job), job.settings
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
            questions = merge_questions(merge_all(ratings, merge_of(comparison)))
            costs.append(cost(name, merger(settings), questions, settings, answers))
    _say_what_is_read(work, console)
    console.print(costs_table(costs))


def show_report(job: AnnotationJob, console: Console) -> None:
    """Show the tables of the answers that there are; nothing is asked or written."""
    answers = read_answers(log_path(job.output))
    ratings, comparison = AnnotationWork.of(job).ratings(answers)
    for table in report.tables(ratings, comparison, _merge_in_use(ratings, comparison), answers):
        console.print(table)


def run(job: AnnotationJob, console: Console) -> int:
    """Ask, merge and write; give the exit code: 1 where questions are left or nothing could be written."""
    work, settings = AnnotationWork.of(job), job.settings
    _say_what_is_read(work, console)
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
                merged = merge_all(ratings, how)
                if questions := merge_questions(merged):
                    asked = [(merger(settings), iter(questions))]
                    asking.append(_ask(log, settings, asked, len(questions), console))
                if all(outcome(question, log.answers, settings).settled for question in questions):
                    lines = list(output_lines(ratings, merged, log.answers))
                    write_lines(job.output, lines)
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
        soft_wrap=True,
    )  # fmt: skip
    return 0 if written else 1


def _merge_in_use(ratings: Ratings, comparison: GoldenComparison) -> Merge | None:
    """Give the merge, or None while ratings are due: one more answer could change every merged rating."""
    return merge_of(comparison) if ratings.settled and comparison.ratings.settled else None


def _ask(log: AnswerLog, settings: Annotate, asked: Sequence[Asked], total: int, console: Console) -> Asking:
    """Ask under progress bars, one per annotator; `total` questions each."""
    with progress(console) as bars:
        tasks = {annotator.name: bars.add_task(annotator.name, total=total) for annotator, _ in asked}
        asking = Asking(log, settings.attempts, lambda name: bars.advance(tasks[name]))
        asking.ask(asked)
    return asking


def _say_what_is_read(work: AnnotationWork, console: Console) -> None:
    left_out = [f"{work.dropped[kind]:,} {words}" for kind, words in KINDS.items() if work.dropped[kind]]
    rest = f" (left out: {', '.join(left_out)})" if left_out else ""
    text = f"{len(work.rows):,} conversations{rest} → {work.job.output}"
    console.print(text, soft_wrap=True)


def _say_what_went_wrong(rounds: Sequence[Asking], console: Console) -> None:
    for name, count in sum((asking.asked for asking in rounds), Counter[str]()).items():
        console.print(f"{name}: {count:,} requests answered")
    for asking in rounds:
        for (name, fault), count in asking.unanswered.items():
            console.print(f"{name}: {count:,} questions unanswered ({fault})", style="red")
        for error in asking.stopped:
            console.print(f"stopped: {error}", style="red", soft_wrap=True)
