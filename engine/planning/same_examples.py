"""Data files that have changed and still give the very same examples: nothing is made anew for them.

A column that nothing reads may have come or gone, numbers may be spelled otherwise, rows left out may be
others. Rows in another order are other examples: ids, splits and draws hang on their places.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import islice, product
from pathlib import Path

from engine.data.prepare import FILE, examples_text
from engine.data.sources import sources
from engine.errors import DataError
from engine.planning.data_read import tested_data, trained_data
from engine.planning.identities import file_identities
from engine.planning.stage_keys import data_key
from specs import Matrix
from specs.tables.data import Data
from store import Ledger, StoreError

MOST_GUESSES = 16  # of what the files of one table of data were; each is looked up by its key alone


def same_examples(matrix: Matrix, ledger: Ledger, known: Mapping[str, str]) -> dict[str, str]:
    """Give the changed files that give the examples which the store holds.

    Args:
        matrix: The cells; every table of data that reads a file has to have the same examples as before.
        ledger: The store's records.
        known: What the store says of files: path → identity of the content that they had. A file whose path
            it does not know (the study was copied or moved) is looked for by its name.

    Returns:
        path → the identity by which the store's results are known.
    """
    tables = {
        repr((data, labels)): (data, labels)
        for cell in matrix.distinct("data", "evaluate", "prompt")
        for data in (trained_data(matrix, cell), tested_data(matrix, cell))
        for labels in [matrix.table("evaluate", cell).labels]
    }
    same: dict[str, str] = {}
    other: set[str] = set()
    for data, labels in tables.values():
        former = _former(file_identities(data), {**known, **same})
        held = (found for found in former if _gives_what_is_held(data, labels, ledger, found))
        found = next(held, None)
        if found is None:
            other |= file_identities(data).keys()
        else:
            same |= found
    return {path: identity for path, identity in same.items() if path not in other}


def _former(now: Mapping[str, str], known: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yield what changed files may have been, by path; files that are as they were are left out."""
    by_name: dict[str, list[str]] = {}
    for path, identity in known.items():
        by_name.setdefault(Path(path).name, []).append(identity)
    choices: list[list[tuple[str, str]]] = []
    for path, identity in now.items():
        meant = [known[path]] if path in known else by_name.get(Path(path).name, [])
        if meant and identity not in meant:
            choices.append([(path, other) for other in dict.fromkeys(meant)])
    if choices:
        yield from map(dict, islice(product(*choices), MOST_GUESSES))


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
