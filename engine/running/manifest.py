"""The manifest of an experiment: written by an execution, and put back by one of which nothing is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from attrs import define

from engine.errors import DataError
from engine.planning.plan import Plan
from engine.planning.plugins_used import used_plugins
from engine.quantities import count
from engine.running.provenance import provenance
from engine.running.resume_progress import progress_on_disk
from specs.toml.paths import no_such
from store import read_manifests, write_manifest
from store.ledger.manifests import lost_cells, put_back_manifest


def manifest(plan: Plan, where: dict[str, Any]) -> dict[str, Any]:
    """Give the experiment's manifest: spec, factors, cells, contrasts and provenance."""
    from specs.toml.convert import unstructure

    plugins = used_plugins(plan.matrix)
    return {
        "spec": unstructure(plan.matrix.experiment),
        "factors": [axis.name for axis in plan.matrix.axes],
        "cells": plan.listed(),
        "contrasts": [list(pair) for pair in plan.matrix.pairs()],
        # By these alone the store knows whose the data are: a reader of cells needs none.
        "data": plan.data_keys(),
        # By these a later plan knows the content of files that are not there any more.
        "files": plan.files(),
        **({"plugins": plugins} if plugins else {}),
        **where,
    }


@define
class Registration:
    """An experiment in the store's manifest, as a plan that is being executed has it."""

    plan: Plan
    described: dict[str, Any]
    former: dict[str, Any] | None
    """The manifest before, where it names finished cells that the plan has not."""
    done: set[tuple[str, str]]
    """Stages of the plan's cells that were done before, with their keys."""
    put_back: bool = False
    """Whether the manifest says again what it said before."""

    @classmethod
    def of(cls, plan: Plan, where: dict[str, Any]) -> Registration:
        """Write a plan's manifest.

        Raises:
            DataError: where data files are missing, and finished cells would lose their names for that.
        """
        name, described = plan.matrix.experiment.name, manifest(plan, where)
        lost = lost_cells(plan.root, name, described)
        _check_files(plan, lost)
        former = read_manifests(plan.root)[name] if lost else None
        write_manifest(plan.root, name, described)
        plan.look_up()  # from here on `engine gc` spares what the plan finds
        return cls(plan, described, former, _in_state(plan, "cached"))

    @contextmanager
    def unless_idle(self) -> Iterator[None]:
        """Put the former manifest back behind the `with` block where nothing was done of the plan's cells.

        That is where no stage of them has ended well meanwhile, none is at work, and none has left progress
        from which it could go on.
        """
        try:
            yield
        finally:
            if self.former is not None and not self._has_gone_on():
                name = self.plan.matrix.experiment.name
                self.put_back = put_back_manifest(self.plan.root, name, self.described, self.former)

    def _has_gone_on(self) -> bool:
        self.plan.look_up()
        if _in_state(self.plan, "cached") - self.done or _in_state(self.plan, "running"):
            return True
        left = _in_state(self.plan, "pending") | _in_state(self.plan, "failed")
        return any(progress_on_disk(self.plan.root, stage, key) is not None for stage, key in left)


def note_plan(plan: Plan) -> bool:
    """Write the manifest of a plan without pending cells, where the store's own says something else.

    An extended or renamed spec may consist of results that other specs have left in the store. A plan whose
    cells have all failed takes the place of no finished ones: False then.
    """
    name, described = plan.matrix.experiment.name, manifest(plan, {})
    if not any(plan.state(cell) == "cached" for cell in plan.cells) and lost_cells(
        plan.root, name, described
    ):
        return False
    known = read_manifests(plan.root).get(name, {})
    spec, asked = known.get("spec", {}), described["spec"]
    if any(known.get(part) != described[part] for part in ("cells", "data", "files")) or any(
        json.dumps(spec.get(part)) != json.dumps(asked[part]) for part in ("analysis", "contrasts")
    ):
        write_manifest(plan.root, name, described | provenance())
    return True


def _in_state(plan: Plan, state: str) -> set[tuple[str, str]]:
    """Give the stages of cells that are in a state, with their keys; those of data are no cell's."""
    return {
        (stage, key)
        for stage, by_key in plan.states.items()
        for key, found in by_key.items()
        if found == state and stage != "data"
    }


def _check_files(plan: Plan, lost: int) -> None:
    """Raise DataError where data files are missing, and finished cells would lose their names for that."""
    if lost and (missing := plan.missing()):
        more = (
            f", and without it {count(lost, 'finished cell')} would be none of this experiment; they stay in "
            "the store; expected the file, or another name of the experiment"
        )
        raise DataError(f"data.source: {no_such(missing[0], more=more)}")
