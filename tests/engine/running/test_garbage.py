"""Collections of garbage during a run: they free what the run makes, and skip what was there before."""

from __future__ import annotations

import gc
import weakref

from engine.running.garbage import only_of_this_run


class Knot:
    """Garbage that only a collection frees."""

    def __init__(self) -> None:
        self.own = self


def test_garbage_of_the_run_and_of_the_time_before_is_freed() -> None:
    before = weakref.ref(Knot())
    with only_of_this_run():
        assert before() is None and gc.get_freeze_count() > 0
        within = weakref.ref(Knot())
        gc.collect()
        assert within() is None
    assert gc.get_freeze_count() == 0


def test_what_was_left_out_is_garbage_like_any_other_afterwards() -> None:
    knot = Knot()
    seen = weakref.ref(knot)
    with only_of_this_run():
        del knot
    gc.collect()
    assert seen() is None
