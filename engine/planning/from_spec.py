"""The plan of a spec's file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.planning.data_labels import read_spec
from engine.planning.plan import Plan, make_plan
from specs import resolve
from store.backend.location import Root


def plan_from_spec(path: str | Path, overrides: Sequence[str] = (), store: Root | None = None) -> Plan:
    """Read a spec and plan it, without what the files on this machine tell to be wrong.

    overrides: `KEY=VALUE`. store: by default the spec's own. SpecError as of `specs.load_spec`.
    """
    return make_plan(resolve(read_spec(path, overrides)), store)
