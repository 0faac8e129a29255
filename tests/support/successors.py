"""What a store owes the process that has taken a stage over from another one."""

from __future__ import annotations

from typing import Any

import pytest

from store import CellWriter, Claim, Family, Ledger, LostClaimError, StoreWriter
from store.backend.location import Root


def succeed(
    root: Root,
    family: Family,
    key: str,
    taken: Claim,
    ledger: Ledger,
    former: tuple[CellWriter, CellWriter],
    values: tuple[dict[str, Any], dict[str, Any]],
) -> CellWriter:
    """Finish a key under a claim that was taken over, while its former owner goes on writing other values.

    One writer of the former owner looks at its claim and is refused; one is past that look already.
    """
    theirs, ours = values
    late, unaware = former
    with StoreWriter(root).cell(family, key, claim=taken) as cell:
        assert cell.start == 0
        cell.append(ours)
    with pytest.raises(LostClaimError):
        late.append(theirs)
    unaware._claim = None  # as if it had been stopped right behind that check
    unaware.append(theirs)
    ledger.commit(family.stage, key, cell.placement)
    return cell
