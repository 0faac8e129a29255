"""Asking: every question that has no valid answer yet goes to its annotator, and every answer to the log."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import httpx2
from attrs import define, evolve, field

from engine.annotation.answers import AnswerLog, LoggedAnswer
from engine.annotation.endpoint import Endpoint, StoppedError, UnansweredError, api_key
from engine.annotation.local import LocalModel
from engine.annotation.questions import AnnotatorQuestion, AnnotatorRequest, follow
from specs.tables.annotate import Annotator

GIVE_UP = 10  # questions in a row without an answer, each with all its retries, after which a server is down

Asked = tuple[Annotator, Iterator[AnnotatorQuestion]]


@define
class Asking:
    """One round of questions. `advance` is called with the annotator's name after every question."""

    log: AnswerLog
    attempts: int
    advance: Callable[[str], None]
    asked: Counter[str] = field(factory=Counter)  # annotator → requests answered now
    unanswered: Counter[tuple[str, str]] = field(factory=Counter)  # (annotator, fault) → questions
    stopped: list[StoppedError] = field(factory=list)
    _sent: set[str] = field(factory=set)

    def ask(self, asked: Sequence[Asked]) -> None:
        """Ask all endpoints at the same time, then each model that is loaded here."""
        remote = [(annotator, questions) for annotator, questions in asked if annotator.endpoint is not None]
        for annotator, _ in remote:
            api_key(annotator)  # before the first request costs anything
        asyncio.run(self._ask_endpoints(remote))
        for annotator, questions in asked:
            if annotator.endpoint is None:
                self._ask_local(annotator, questions)

    async def _ask_endpoints(self, asked: Sequence[Asked]) -> None:
        async with asyncio.TaskGroup() as group:
            for annotator, questions in asked:
                group.create_task(self._ask_endpoint(annotator, questions))

    async def _ask_endpoint(self, annotator: Annotator, questions: Iterator[AnnotatorQuestion]) -> None:
        limits = httpx2.Limits(max_connections=annotator.concurrency)
        answered = any(a.annotator == annotator.name and not a.refused for a in self.log.answers.values())
        try:
            # The time of a whole request is limited, not that of its parts.
            async with httpx2.AsyncClient(timeout=None, limits=limits) as client:
                worker = _Worker(self, Endpoint(annotator, client, answered=answered), questions)
                async with asyncio.TaskGroup() as group:
                    for _ in range(annotator.concurrency):
                        group.create_task(worker.run())
        except* StoppedError as errors:
            self.stopped.append(_first(errors))

    def _ask_local(self, annotator: Annotator, questions: Iterator[AnnotatorQuestion]) -> None:
        model: LocalModel | None = None
        window: dict[str, tuple[AnnotatorQuestion, AnnotatorRequest]] = {}
        while True:
            while len(window) < annotator.concurrency and (question := next(questions, None)) is not None:
                self._admit(question, window)
            if not window:
                return
            model = model or LocalModel(annotator)
            batch = list(window.values())
            window.clear()
            answers = model.ask([request.body for _, request in batch])
            for (question, request), answer in zip(batch, answers, strict=True):
                self.keep(question, request, answer)
            for question, _ in batch:
                self._admit(question, window)

    def _admit(
        self, question: AnnotatorQuestion, window: dict[str, tuple[AnnotatorQuestion, AnnotatorRequest]]
    ) -> None:
        request = self.due(question)
        if request is None:
            self.advance(question.annotator.name)
        else:
            window[request.key] = (question, request)

    def due(self, question: AnnotatorQuestion) -> AnnotatorRequest | None:
        """Give the request that a question waits for, unless this round has sent it already."""
        request = follow(question, self.log.answers, self.attempts).request
        return None if request is None or request.key in self._sent else request

    def sent(self, request: AnnotatorRequest) -> None:
        """Remember a request, so that conversations that occur twice are asked about once."""
        self._sent.add(request.key)

    def keep(self, question: AnnotatorQuestion, request: AnnotatorRequest, answer: LoggedAnswer) -> None:
        """Write an answer to the log."""
        name = question.annotator.name
        self.asked[name] += 1
        about = {
            "strategy": question.strategy_name, "dimension": question.dimension, "id": question.row["id"],
            "attempt": request.attempt,
        }  # fmt: skip
        self.log.add(request.key, evolve(answer, annotator=name), about)


@define
class _Worker:
    """What the tasks of one endpoint share: the questions, and how many in a row went unanswered."""

    round: Asking
    endpoint: Endpoint
    questions: Iterator[AnnotatorQuestion]
    failed: int = 0

    async def run(self) -> None:
        """Take questions until none is left."""
        for question in self.questions:
            name = question.annotator.name
            try:
                while (request := self.round.due(question)) is not None:
                    self.round.sent(request)
                    answer = await self.endpoint.ask(request.body)
                    self.round.keep(question, request, answer)
                    self.failed = 0
            except UnansweredError as error:
                self.round.unanswered[name, str(error)] += 1
                self.failed += 1
                if self.failed >= GIVE_UP:
                    raise self.endpoint.stopped(
                        f"{self.failed} questions in a row got no answer; the last: {error}"
                    ) from error
            self.round.advance(name)
            await asyncio.sleep(0)  # questions answered long ago must not hold up the others' requests


def _first(errors: BaseExceptionGroup[StoppedError]) -> StoppedError:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, StoppedError)
    return error
