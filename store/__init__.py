"""The store: a ledger of finished work, Zarr arrays, and one labelled xarray tree to read them by.

Names are imported when first used: the ledger alone must not cost the import of zarr and xarray.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from store.claims import Claim
    from store.errors import LostClaimError, StoreError
    from store.history import record_look
    from store.ledger import Ledger
    from store.manifests import cells, read_manifests, write_manifest
    from store.pooling import pool
    from store.reader import open_store
    from store.schema import Coordinate, Family, Variable
    from store.vocabulary import read_vocabulary, write_vocabulary
    from store.writer import CellWriter, StoreWriter

# zarr 3.1.0 says of every array of strings that its format is young, a dozen times a command.
warnings.filterwarnings("ignore", message="The codec `vlen-utf8` is currently not part", category=UserWarning)

_HOMES = {
    "CellWriter": "writer",
    "Claim": "claims",
    "Coordinate": "schema",
    "Family": "schema",
    "Ledger": "ledger",
    "LostClaimError": "errors",
    "StoreError": "errors",
    "StoreWriter": "writer",
    "Variable": "schema",
    "cells": "manifests",
    "open_store": "reader",
    "pool": "pooling",
    "read_manifests": "manifests",
    "read_vocabulary": "vocabulary",
    "record_look": "history",
    "write_manifest": "manifests",
    "write_vocabulary": "vocabulary",
}

__all__ = [
    "CellWriter",
    "Claim",
    "Coordinate",
    "Family",
    "Ledger",
    "LostClaimError",
    "StoreError",
    "StoreWriter",
    "Variable",
    "cells",
    "open_store",
    "pool",
    "read_manifests",
    "read_vocabulary",
    "record_look",
    "write_manifest",
    "write_vocabulary",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'store' has no attribute {name!r}")
    return getattr(import_module(f"store.{_HOMES[name]}"), name)
