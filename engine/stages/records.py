"""What every stage does beside its work: it is claimed, its arrays are written, its record comes last."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from attrs import frozen

from engine.errors import ChangedWeightsError, DoneElsewhereError, HeldElsewhereError
from engine.full_memory import SOLE, Sharing
from engine.models.base_model import BaseModel
from engine.planning.plan import Plan, PlannedCell
from engine.process_group.alone import ALONE, ProcessGroup
from engine.progress import Report, StopRequest
from specs.tables.by_name import TableOf
from store import CellWriter, Claim, Family, Ledger, LostClaimError, StoreWriter
from store.backend.location import Place
from store.backend.result_files import result_files
from store.ledger.ledger import progress_name


@frozen
class StageRecords:
    """The claims, writers and records of a plan's stages."""

    plan: Plan
    ledger: Ledger
    writer: StoreWriter
    provenance: dict[str, Any]
    stop: StopRequest
    ranks: ProcessGroup = ALONE
    sharing: Sharing = SOLE

    def home(self, stage: str, key: str) -> Place:
        """Give the place of a stage's files in the store."""
        return self.plan.root.under(f"{stage}/{key}")

    @property
    def settings(self) -> TableOf[PlannedCell]:
        """A function from a table's name and a cell to the table as the cell's levels set it."""

        def of_cell(name: str, cell: PlannedCell) -> Any:
            return self.plan.matrix.table(name, cell.choice)

        return of_cell

    def put_aside(self, home: Place, name: str) -> None:
        """Take a damaged file or folder out of the way."""
        self.ranks.lead(lambda: home.put_aside(name))

    def sink(self, family: Family, key: str, *, resume: bool = True) -> CellWriter:
        """Give the writer of a stage's arrays, which ends where this process loses its claim."""
        return self.writer.cell(family, key, resume=resume, claim=self.claim(family.stage, key))

    def claim(self, stage: str, key: str) -> Claim:
        """Claim a stage for this process; HeldElsewhereError while another one runs it."""
        claim = self.ledger.start(stage, key)
        if claim is None:
            raise HeldElsewhereError(f"another process is running {stage} {key}")
        return claim

    @contextmanager
    def committing(self, stage: str, key: str, base: BaseModel | None = None) -> Iterator[dict[str, Any]]:
        """Claim a stage, and commit its record when the block ends without an error.

        With an error the claim stays, until the caller has recorded that or releases it. A changed weight of
        the base model is one (ChangedWeightsError): nothing that the stage has kept so far is gone on from.
        """
        started = time.time()
        self.claim(stage, key)
        if self.ledger.has(stage, key):
            raise DoneElsewhereError(f"another process has done {stage} {key}")
        record: dict[str, Any] = {}
        try:
            yield record
        except LostClaimError:
            raise  # what is kept is another process's now
        except BaseException:
            with suppress(RuntimeError):  # of a device that does not answer any more
                if base is not None and base.has_changed():
                    self._forget(stage, key)
            raise
        if base is not None and self.ranks.any(base.has_changed()):
            self._forget(stage, key)
            raise ChangedWeightsError(
                "the weights of the base model have changed since it was loaded, so nothing of this is kept"
            )
        taken = {"seconds": time.time() - started} | record  # a stage that shares its time tells its own
        record |= {"started": started, **taken, "provenance": self.provenance}
        if files := result_files(self.plan.root, stage, key):
            record["files"] = files
        self.ledger.commit(stage, key, record)

    def _forget(self, stage: str, key: str) -> None:
        """Remove what a stage that this process has claimed has kept, here and in the store."""
        if self.ranks.rank == 0:
            self.plan.root.remove(progress_name(key))
            self.plan.root.remove_all(f"{stage}/{key}")
            shutil.rmtree(self.home(stage, key).scratch(), ignore_errors=True)


def checked(report: Report, claim: Claim) -> Report:
    """Give a report that raises LostClaimError once another process has taken the stage over."""

    def claimed(done: int, total: int, text: str) -> None:
        claim.check()
        report(done, total, text)

    return claimed
