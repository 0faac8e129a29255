"""`[evaluate.inspect]`: tasks of Inspect on which models are measured, too."""

from __future__ import annotations

from typing import Annotated

from attrs import field, frozen
from msgspec import Meta

from specs.tables.fields import PositiveInt, read_by

BY_INSPECT = read_by("base_inspect", "inspect")


@frozen(kw_only=True)
class InspectTasks:
    """`[evaluate.inspect]`: tasks of Inspect (UK AISI) on which each model is measured. See tasks.md."""

    tasks: Annotated[
        list[Annotated[str, Meta(min_length=1)]],
        Meta(
            description="Tasks as Inspect names them: `FILE.py@TASK` (`FILE.py`: all of the file), relative "
            "to the spec, or `PACKAGE/TASK` of an installed package; needs the extra `inspect`."
        ),
    ] = field(factory=list, metadata=BY_INSPECT)
    samples: Annotated[
        PositiveInt | None, Meta(description="Of each task, the first so many samples; default: all.")
    ] = field(default=None, metadata=BY_INSPECT)
    max_tokens: Annotated[
        PositiveInt | None,
        Meta(description="Longest answer, in tokens; default: as the task has it, else Inspect's 2048."),
    ] = field(default=None, metadata=BY_INSPECT)
    seed: Annotated[
        int,
        Meta(
            ge=0, le=2**32 - 1,
            description="Seed of what a task draws. Answers are greedy unless a task sets a temperature.",
        ),
    ] = field(default=0, metadata=BY_INSPECT)  # fmt: skip
