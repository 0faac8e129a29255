"""`executor.notify`: a command of the person's own, run when an execution ends."""

from __future__ import annotations

import os
import subprocess

from engine.planning.plan import Plan

SECONDS = 60.0  # that the command may take


def notify(plan: Plan, state: str, summary: str) -> str:
    """Run the spec's command, if it has one; say in a sentence why that failed, "" where it did not.

    The command finds in its environment ABLATION_EXPERIMENT, ABLATION_STORE, ABLATION_STATE and
    ABLATION_SUMMARY.

    Args:
        plan: what was executed.
        state: "done", "failed" or "stopped".
        summary: what happened, in one line.
    """
    command = plan.matrix.experiment.executor.notify
    if command is None:
        return ""
    told = {
        "EXPERIMENT": plan.matrix.experiment.name,
        "STORE": str(plan.root),
        "STATE": state,
        "SUMMARY": summary,
    }
    environment = os.environ | {f"ABLATION_{name}": value.replace("\0", "") for name, value in told.items()}
    try:
        done = subprocess.run(
            command, shell=True, env=environment, stdin=subprocess.DEVNULL, timeout=SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"executor.notify: {command!r} did not end well: {error}"
    return f"executor.notify: {command!r} ended with {done.returncode}" if done.returncode else ""
