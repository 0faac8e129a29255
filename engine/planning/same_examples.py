"""Data files that have changed and still give the very same examples: nothing is made anew for them.

A column that nothing reads may have come or gone, numbers may be spelled otherwise, rows left out may be
others. Rows in another order are other examples: ids, splits and draws hang on their places.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from engine.data.prepare import FILE, examples_text
from engine.data.sources import sources
from engine.errors import DataError
from engine.planning.data_read import tested_data, trained_data
from engine.planning.identities import file_identities
from engine.planning.stage_keys import data_key
from specs import Matrix
from specs.tables.data import Data
from store import Ledger, StoreError


def same_examples(matrix: Matrix, ledger: Ledger, known: Mapping[str, str]) -> dict[str, str]:
    """Give the changed files that give the examples which the store holds.

    Args:
        matrix: The cells; every table of data that reads a file has to have the same examples as before.
        ledger: The store's records.
        known: What the store says of files: path → identity of the content that they had.

    Returns:
        path → the identity by which the store's results are known.
    """
    tables = {
        repr((data, labels)): (data, labels)
        for cell in matrix.distinct("data", "evaluate", "prompt")
        for data in (trained_data(matrix, cell), tested_data(matrix, cell))
        for labels in [matrix.table("evaluate", cell).labels]
    }
    same: dict[str, bool] = {}
    for data, labels in tables.values():
        now = file_identities(data)
        changed = {path: known[path] for path in now if known.get(path, now[path]) != now[path]}
        if changed:
            equal = _gives_what_is_held(data, labels, ledger, changed)
            same |= {path: equal and same.get(path, True) for path in changed}
    return {path: known[path] for path, equal in same.items() if equal}


def _gives_what_is_held(data: Data, labels: list[str], ledger: Ledger, known: Mapping[str, str]) -> bool:
    if any(source.missing for source in sources(data)):
        return False
    try:
        key = data_key(data, labels, known)
        if key not in ledger.done("data"):
            return False
        held = ledger.record("data", key).get("files", {}).get(FILE, {}).get("blake2b")
        _, text, _ = examples_text(data, labels)
    except (DataError, StoreError):
        return False
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest() == held
