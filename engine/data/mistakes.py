"""Rows of a file that cannot be read: told together, the first of them one by one."""

from __future__ import annotations

from attrs import define, field

from engine.errors import DataError
from engine.quantities import count

LISTED = 5  # mistakes that an error lists


@define
class Mistakes:
    """What was wrong with rows of one file so far."""

    where: str
    total: int = 0
    _listed: list[str] = field(factory=list)

    def note(self, mistake: str) -> None:
        """Count a mistake, which says where it stands."""
        self.total += 1
        if len(self._listed) < LISTED:
            self._listed.append(mistake)

    def close(self) -> None:
        """Raise DataError if there were mistakes, with the first of them and their number."""
        if self.total == 1:
            raise DataError(self._listed[0])
        if self.total:
            more = [f"… and {self.total - len(self._listed):,} more"] * (self.total > len(self._listed))
            told = f"{self.where}: {count(self.total, 'row')} cannot be read"
            raise DataError("\n  ".join([told, *self._listed, *more]))
