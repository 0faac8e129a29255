"""Functions that take turns: one at a time, answered together, ended together where one breaks off."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import Interrupted
from engine.stages.training.together.turns import Turn, take_turns


@define(eq=False)
class Noted:
    """A state that notes who is in place."""

    name: int
    stack: list[int]

    def enter(self) -> None:
        self.stack.append(self.name)

    def leave(self) -> None:
        assert self.stack.pop() == self.name


@define(eq=False)
class Run:
    """Some functions, what they have done in which order, and what was asked at once."""

    actions: Sequence[Callable[[Any], None]]
    events: list[Any] = field(factory=list)
    rounds: list[list[Any]] = field(factory=list)
    turns: list[Turn[Any, Any]] = field(factory=list)

    def run(self, answers: Callable[[list[Any]], list[Any]] = lambda asked: asked) -> None:
        stack: list[int] = []

        def answered(waiting: Sequence[Turn[Any, Any]]) -> list[Any]:
            assert not stack
            self.rounds.append([turn.asked for turn in waiting])
            return answers(self.rounds[-1])

        self.turns = [Turn(action, Noted(number, stack)) for number, action in enumerate(self.actions)]
        take_turns(self.turns, answered)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5))
def test_all_that_have_not_ended_are_answered_at_once(asks: list[int]) -> None:
    got: dict[int, list[Any]] = {}

    def action(number: int) -> Callable[[Any], None]:
        def act(turn: Any) -> None:
            got[number] = [turn.ask((number, time)) for time in range(asks[number])]

        return act

    run = Run([action(number) for number in range(len(asks))])
    run.run(lambda asked: [("answer", *each) for each in asked])
    assert run.rounds == [
        [(number, time) for number, count in enumerate(asks) if time < count] for time in range(max(asks))
    ]
    assert got == {
        number: [("answer", number, time) for time in range(count)] for number, count in enumerate(asks)
    }


def test_one_runs_at_a_time_in_order() -> None:
    running: list[int] = []
    order: list[int] = []

    def action(number: int) -> Callable[[Any], None]:
        def act(turn: Any) -> None:
            for _ in range(3):
                running.append(number)
                order.append(number)
                time.sleep(0.001)
                assert running == [number]
                running.clear()
                turn.ask(None)

        return act

    Run([action(number) for number in range(3)]).run()
    assert order == [0, 1, 2] * 3


def test_seconds_are_those_of_own_turns_and_a_share_of_the_answers() -> None:
    own, shared = [0.0], [0.0]  # seconds, as they were: a busy machine sleeps longer than it is asked to

    def sleep(slept: list[float]) -> None:
        begun = time.monotonic()
        time.sleep(0.3)
        slept[0] += time.monotonic() - begun

    def slow(turn: Any) -> None:
        for _ in range(2):
            sleep(own)
            turn.ask(None)
        assert turn.clock() == pytest.approx(own[0] + shared[0] / 2, abs=0.2)

    def fast(turn: Any) -> None:
        for _ in range(2):
            turn.ask(None)
        assert turn.clock() == pytest.approx(shared[0] / 2, abs=0.2)

    def answers(asked: list[Any]) -> list[Any]:
        sleep(shared)
        return asked

    run = Run([slow, fast])
    run.run(answers)
    expected = [own[0] + shared[0] / 2, shared[0] / 2]
    assert [turn.seconds for turn in run.turns] == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize("error", [ValueError("own"), KeyboardInterrupt(), SystemExit(3)])
def test_what_one_raises_ends_the_others_where_they_wait(error: BaseException) -> None:
    ended: list[Any] = []

    def waits(turn: Any) -> None:
        try:
            for _ in range(9):
                turn.ask(None)
        except BaseException as found:
            ended.append(type(found))
            with pytest.raises(type(found)):  # and again, whatever it does meanwhile
                turn.ask(None)
            raise

    def fails(turn: Any) -> None:
        turn.ask(None)
        raise error

    run = Run([waits, fails, waits])
    with pytest.raises(type(error)) as raised:
        run.run()
    assert raised.value is error
    assert ended == [Interrupted if isinstance(error, Exception) else KeyboardInterrupt] * 2
    assert all(turn.has_ended for turn in run.turns)


def test_a_stop_leaves_each_to_stop_by_itself() -> None:
    """Each does the step that it is in, as a training that saves then."""
    done: list[int] = []

    def action(number: int) -> Callable[[Any], None]:
        def act(turn: Any) -> None:
            for step in range(3):
                turn.ask(None)
                if step == 1:
                    done.append(number)
                    raise Interrupted

        return act

    run = Run([action(number) for number in range(3)])
    with pytest.raises(Interrupted):
        run.run()
    assert done == [0, 1, 2] and len(run.rounds) == 2


def test_an_error_of_the_answers_ends_all() -> None:
    ended: list[Any] = []

    def waits(turn: Any) -> None:
        try:
            turn.ask(None)
        except BaseException as found:
            ended.append(type(found))
            raise

    def broken(_asked: list[Any]) -> list[Any]:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        Run([waits, waits]).run(broken)
    assert ended == [Interrupted] * 2


def test_an_interrupt_reaches_the_one_that_runs() -> None:
    """As a second Ctrl-C, which the main thread gets while it waits for a turn."""
    ended: list[Any] = []

    def busy(turn: Any) -> None:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                time.sleep(0.01)
        except BaseException as found:
            ended.append(type(found))
            raise

    run = Run([busy, busy])
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert time.monotonic() - began < 10
    assert ended == [KeyboardInterrupt]
