"""The store: a ledger of finished work, Zarr arrays, and one labelled xarray tree to read them by.

Names are imported when first used: the ledger alone must not cost the import of zarr and xarray.
"""

import warnings
from typing import TYPE_CHECKING

from specs.common.lazy_names import lazy_names

if TYPE_CHECKING:
    from store.arrays.schema import Coordinate, Family, Variable
    from store.errors import LostClaimError, StoreError
    from store.lease.claims import Claim
    from store.ledger.history import record_look
    from store.ledger.ledger import Ledger
    from store.ledger.manifests import cells, read_manifests, write_manifest
    from store.ledger.vocabulary import read_vocabulary, write_vocabulary
    from store.pooling import pool
    from store.reader import open_store, stage_result
    from store.writer import CellWriter, StoreWriter

# zarr 3.1.0 says of every array of strings that its format is young, a dozen times a command.
warnings.filterwarnings("ignore", message="The codec `vlen-utf8` is currently not part", category=UserWarning)

_HOMES = {
    "CellWriter": "writer",
    "Claim": "lease.claims",
    "Coordinate": "arrays.schema",
    "Family": "arrays.schema",
    "Ledger": "ledger.ledger",
    "LostClaimError": "errors",
    "StoreError": "errors",
    "StoreWriter": "writer",
    "Variable": "arrays.schema",
    "cells": "ledger.manifests",
    "open_store": "reader",
    "pool": "pooling",
    "read_manifests": "ledger.manifests",
    "read_vocabulary": "ledger.vocabulary",
    "record_look": "ledger.history",
    "stage_result": "reader",
    "write_manifest": "ledger.manifests",
    "write_vocabulary": "ledger.vocabulary",
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
    "stage_result",
    "write_manifest",
    "write_vocabulary",
]


__getattr__, __dir__ = lazy_names(__name__, {name: f"store.{home}" for name, home in _HOMES.items()})
