"""Python's collections of garbage, confined to what a run makes.

Every load of a model and every training collects all garbage. With all imports done that is a walk over some
million objects, which takes as long as a small training.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


def leave_out_what_is_here() -> None:
    """Collect once, and let later collections of this process skip what is left: modules and the like."""
    gc.collect()  # what is left out is never freed by a collection
    gc.freeze()


@contextmanager
def only_of_this_run() -> Iterator[None]:
    """Do so inside the `with` block alone, in a process that lives on, such as a notebook's."""
    leave_out_what_is_here()
    try:
        yield
    finally:
        gc.unfreeze()
