"""Functions that take turns in one process: each has a thread, of which one runs at a time.

A function runs until it asks for something. Once all that have not ended have asked, all are answered at
once, in the caller's thread, and go on one after another.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from attrs import define, field

from engine.errors import Interrupted

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

ENDING = 2.0  # seconds that a running thread has to end once the process is interrupted


class State(Protocol):
    """What a function finds as it has left it, whatever the others do between its turns."""

    def enter(self) -> None:
        """Put it in place."""

    def leave(self) -> None:
        """Note it, and put back what was in place before."""


def _semaphore() -> threading.Semaphore:
    return threading.Semaphore(0)


@define(eq=False)
class Turn(Generic[Asked, Answer]):
    """One function, which is called with its turn and asks through it, and where it stands."""

    action: Callable[[Turn[Asked, Answer]], None]
    state: State
    seconds: float = 0.0
    """Of its own turns, and its share of those in which all were answered."""
    error: BaseException | None = None
    """What the function has raised."""
    has_ended: bool = False
    """Whether the function has returned or raised."""
    _asked: list[Asked] = field(factory=list)  # one, or none
    _answers: list[Answer] = field(factory=list)
    _ending: BaseException | None = None
    _runs: bool = False
    _go: threading.Semaphore = field(factory=_semaphore)
    _back: threading.Semaphore = field(factory=_semaphore)
    _thread: threading.Thread | None = None
    _since: float = 0.0

    def clock(self) -> float:
        """Give its seconds up to now; to be asked for in its own turn."""
        return self.seconds + time.perf_counter() - self._since

    def ask(self, asked: Asked) -> Answer:
        """Ask, from within the function, and wait for the answer; raise what it is to end with instead."""
        if self._ending is None:
            self._asked.append(asked)
            self._back.release()
            self._go.acquire()
        if self._ending is not None:
            raise self._ending
        return self._answers.pop()

    @property
    def asked(self) -> Asked:
        """What the function has asked for."""
        return self._asked[0]

    def answer(self, answer: Answer, seconds: float) -> None:
        """Give the answer, and this turn's share of the time that it took."""
        self._asked.clear()
        self._answers.append(answer)
        self.seconds += seconds

    def go_on(self) -> None:
        """Let the function run until it asks or ends."""
        self.state.enter()
        self._since, self._runs = time.perf_counter(), True
        try:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()
            else:
                self._go.release()
            self._back.acquire()
            self._runs = False
        finally:
            self.seconds += time.perf_counter() - self._since
            self.state.leave()

    def end(self, error: BaseException) -> None:
        """Let the function raise an error, unless it has ended, and wait for its end."""
        self._ending = error
        if self._thread is None or self.has_ended:
            return
        if not self._runs:
            self.go_on()
        else:  # the caller was interrupted while it waited for it
            identity, kind = ctypes.c_ulong(self._thread.ident or 0), ctypes.py_object(type(error))
            ctypes.pythonapi.PyThreadState_SetAsyncExc(identity, kind)
            self._back.acquire(timeout=ENDING)

    def _run(self) -> None:
        try:
            self.action(self)
        except BaseException as error:
            self.error = error
        finally:
            self.has_ended = True
            self._back.release()


def take_turns(
    turns: Sequence[Turn[Asked, Answer]],
    answers: Callable[[Sequence[Turn[Asked, Answer]]], Sequence[Answer]],
) -> None:
    """Run functions to their ends.

    `answers` is given those that have all asked, in their order, and gives an answer for each. What one
    raises ends the others, by Interrupted, and is raised. But Interrupted, of a stop request that all can
    see, leaves them to stop by themselves, and is raised when they have.
    """
    waiting = list(turns)
    try:
        while waiting:
            for turn in waiting:
                turn.go_on()
                if turn.error is not None and not isinstance(turn.error, Interrupted):
                    raise turn.error
            if waiting := [turn for turn in waiting if not turn.has_ended]:
                began = time.perf_counter()
                found = answers(waiting)
                share = (time.perf_counter() - began) / len(waiting)
                for turn, answer in zip(waiting, found, strict=True):
                    turn.answer(answer, share)
    except BaseException as error:
        for turn in turns:
            turn.end(Interrupted() if isinstance(error, Exception) else KeyboardInterrupt())
        raise
    for turn in turns:
        if turn.error is not None:
            raise turn.error
