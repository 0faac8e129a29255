"""The executor's settings: the user's file, the spec's `[executor]` over it, the command line over both."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import UsageError
from specs import Spec, SpecError
from specs.load import read_table
from specs.tables.executor import Executor
from specs.toml.convert import structure


def user_file() -> Path:
    """Give the file in which a person says how work runs on a machine, whichever the spec."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "ablation-engine" / "executor.toml"


def executor_settings(spec: Spec, options: Mapping[str, Any]) -> Executor:
    """Give the settings; SpecError names all that is wrong with the user's file."""
    users = read_table(user_file(), Executor) if user_file().is_file() else {}
    typed = {name: value for name, value in options.items() if value is not None}
    settings, problems = structure({**users, **spec.raw.get("executor", {}), **typed}, Executor, "executor")
    if settings is None:  # the file and the spec have been checked
        raise SpecError(problems)
    if settings.ranks > 1 and settings.workers_per_gpu > 1:
        raise UsageError(
            f"executor.workers_per_gpu: found {settings.workers_per_gpu} with executor.ranks = "
            f"{settings.ranks}; expected 1: a unit either shares a GPU or takes several"
        )
    return settings
