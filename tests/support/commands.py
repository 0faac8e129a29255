"""The command `engine` in this process."""

from __future__ import annotations

import contextlib
import io
import re
from collections import Counter
from typing import NamedTuple

import pytest

# For a process of its own, which Ctrl-C reaches as at a terminal, whatever the tests run under.
CODE = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from engine.cli.main import main; main()"
)


class Ended(NamedTuple):
    """How a call of the command ended."""

    code: int
    output: str  # standard output and standard error, as they came


def engine(*arguments: object, code: int = 0, columns: int = 200) -> Ended:
    """Run the command `engine` in this process, on lines of so many columns; check its exit code."""
    found, output = command(*arguments, columns=columns)
    if isinstance(found, BaseException):
        raise found
    assert found == code, output
    return Ended(code, output)


def command(*arguments: object, columns: int = 200) -> tuple[object, str]:
    """Run a command in this process; give its exit code, or the error that escaped it, and its output."""
    from engine.cli.main import main

    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["engine", *map(str, arguments)])
        patch.setenv("COLUMNS", str(columns))
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            try:
                main()
                code: object = 0
            except SystemExit as end:
                code = int(end.code or 0)
            except BaseException as error:  # what no command may let through
                code = error
    return code, output.getvalue()


def ran(*outputs: str) -> Counter[str]:
    """Add up what several executions say that they ran."""
    total: Counter[str] = Counter()
    for output in outputs:
        (said,) = re.findall(r"^Ran (.*); store", output, re.MULTILINE)
        for number, stage in re.findall(r"(\d+) (\w+)", said):
            total[stage] += int(number)
    return total
