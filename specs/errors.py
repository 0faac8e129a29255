"""What is wrong with a spec: one `Problem` per mistake, one `SpecError` for them all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from attrs import evolve, frozen

MOST_LINES = 20  # that a person would read; what many keys have in common shows in the first


@frozen
class Problem:
    """One mistake: where it stands, what was found and what was expected."""

    file: Path | None
    key: str
    message: str
    hint: str = ""
    line: int | None = None
    column: int | None = None
    choices: str = ""
    """What could stand in the place of an unknown key; of several such problems the first shows it."""

    def __str__(self) -> str:
        place = ""
        if self.file is not None:
            place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        text = f"{self.key}: {self.message}" if self.key else self.message
        if self.choices:
            text += f"; expected one of {self.choices}"
        if self.hint:
            text += f'; did you mean "{self.hint}"?'
        return f"{place}  {text}" if place else text


class SpecError(Exception):
    """A spec that cannot be run, with every problem that was found in it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        unique = dict.fromkeys(problems)
        in_order = sorted(unique, key=lambda p: (str(p.file or ""), p.line or 0, p.column or 0, p.key))
        self.problems = list(_choices_once(in_order))
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """Give the problems, a line each; of very many the first."""
        if len(self.problems) <= MOST_LINES:
            return [str(problem) for problem in self.problems]
        listed = [str(problem) for problem in self.problems[: MOST_LINES - 1]]
        return [*listed, f"… and {len(self.problems) - len(listed):,} more problems"]


def _choices_once(problems: Iterable[Problem]) -> Iterator[Problem]:
    """Yield problems, each list of choices with the first that has it alone."""
    told = set()
    for problem in problems:
        yield evolve(problem, choices="") if problem.choices in told else problem
        told.add(problem.choices)


class PluginError(SpecError):
    """A name that nothing stands for, or a plug-in that does not serve, in one sentence."""

    def __init__(self, message: str) -> None:
        super().__init__([Problem(None, "", message)])
