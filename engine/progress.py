"""What a running stage says about itself, and how it is asked to stop."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from types import FrameType

from attrs import define, field

from engine.errors import Interrupted

# Called as report(done, total, text): units of work done of total, and a short text such as the loss.
Report = Callable[[int, int, str], None]


def silent(_done: int, _total: int, _text: str) -> None:
    """Report nothing."""


@define
class StopRequest:
    """Set by the first Ctrl-C, SIGTERM or hang-up; stages look at it between batches."""

    requested: bool = field(default=False)
    insisted: bool = field(default=False)
    """Whether a second one has come: nothing that runs is given time to save."""

    def check(self) -> None:
        """Raise Interrupted if a stop was requested."""
        if self.requested:
            raise Interrupted


def ignore_terminal() -> None:
    """Let Ctrl-C do nothing from now on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def stop_on_signal(told: Callable[[], None] | None = None) -> Iterator[StopRequest]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP into a stop request; a second one interrupts at once.

    told: called at the first one, in a thread of its own, for what the signal interrupts may be printing. It
        has ended when this ends.
    """
    stop, telling = StopRequest(), list[Thread]()

    def request(_signal: int, _frame: FrameType | None) -> None:
        if stop.requested:
            stop.insisted = True
            raise KeyboardInterrupt
        stop.requested = True
        if told is not None:
            telling.append(Thread(target=told, daemon=True))
            telling[0].start()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, request) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for thread in telling:
            thread.join()
