"""JSON Schemas of what commands print with `--json`; `engine schema COMMAND` prints them.

They are exact: a key that is not named here is not printed. A new key may come; one that goes away, or comes
to mean something else, raises `output.FORMAT`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.cli.output import FORMAT

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": ["number", "null"]}  # null: not known, or not finite
SCALAR: Schema = {"type": ["string", "number", "boolean", "null"]}  # a level; null: does not apply
ANY: Schema = {}


def _table(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    return {
        "type": "object",
        "properties": required | (optional or {}),
        "required": list(required),
        "additionalProperties": False,
    }


def _by_name(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


LEVELS = _by_name(SCALAR)
FORMATTED = {"format": {"const": FORMAT}}


def _states(*names: str) -> Schema:
    return _table(dict.fromkeys(names, COUNT))


def _contrast_power() -> dict[str, Schema]:
    return {
        "contrast": TEXT, "levels": _list(SCALAR), "baseline": SCALAR, "outcome": TEXT, "seeds": COUNT,
        "examples": COUNT, "groups": NUMBER, "pairs": COUNT, "layers": NUMBER, "tests": COUNT,
        "looks": {"anyOf": [_list(COUNT), TEXT, {"type": "null"}]}, "test_sets": COUNT, "detectable": NUMBER,
        "detectable_range": _or_null(_list(NUMBER)), "detectable_alone": NUMBER,
        "difference_of_interest": NUMBER, "power": NUMBER, "variances": _by_name(NUMBER), "source": TEXT,
    }  # fmt: skip


def plan() -> Schema:
    """Of `engine plan --json`; with `--diff` that of the comparison."""
    costs = ("tokens", "flops", "peak_memory_bytes", "store_bytes", "gpu_seconds")
    cell = _table({"levels": LEVELS, "keys": _by_name(TEXT), "state": TEXT})
    whole = _table(
        {
            **FORMATTED, "name": TEXT, "store": TEXT, "cells": COUNT, "factors": _by_name(_list(SCALAR)),
            "stages": _by_name(_states("cached", "pending", "failed", "running")), "missing": _list(TEXT),
            "warnings": _list(TEXT), "estimate": _or_null(_by_name(_table(dict.fromkeys(costs, NUMBER)))),
            "passes": _list(_by_name(ANY)), "sizes_from_table": _list(TEXT),
            "task_sizes": _by_name(_list(TEXT)),
            "time": _or_null(_by_name(SCALAR)), "power": _list(_table(_contrast_power())),
        },
        {"matrix": _list(cell), "exact": _list(_by_name(ANY))},
    )  # fmt: skip
    entry = _table({"levels": LEVELS}, {"stages": _list(TEXT), "why": _list(TEXT)})
    named = dict.fromkeys(("shared", "changed", "added", "removed"), _list(entry))
    return {"anyOf": [whole, _table({**FORMATTED, **named})]}


def data() -> Schema:
    """Of `engine data --json`: every distinct data set of the cells."""
    quality = (
        "without", "examples", "explained", "duplicates", "distinct_1", "distinct_2", "templates",
        "names_label", "names_other",
    )  # fmt: skip
    split = _table(
        {
            "examples": COUNT, "groups": COUNT, "labels": _by_name(COUNT), "sources": _by_name(COUNT),
            "explanations": _table(dict.fromkeys(quality, NUMBER)),
        }
    )  # fmt: skip
    tokens = {"levels": LEVELS, "examples": COUNT, "prompt": NUMBER, "from": COUNT, "to": COUNT}
    tokens |= {"too_long": COUNT, "at_most": COUNT}
    one = {
        "sources": _list(TEXT), "dimension": _or_null(TEXT), "labels": _list(TEXT),
        "splits": _by_name(split), "left_out": _by_name(COUNT), "empty_explanations": TEXT,
        "explanations_needed_by": _list(TEXT), "training_lengths": _list(_table(tokens | {"target": NUMBER})),
        "test_lengths": _list(_table(tokens | {"with_answer": NUMBER})),
    }  # fmt: skip
    return _table({**FORMATTED, "data": _list(_table(one))})


def results() -> Schema:
    """Of `engine results --json`: means over seeds by condition, references, contrasts."""
    spread = _table(dict.fromkeys(("mean", "low", "high"), NUMBER))
    layers = {"largest": NUMBER, "tests": COUNT, "below_0.05": COUNT, "least_p": NUMBER}
    contrast = {
        "factor": TEXT, "level": SCALAR, "baseline": SCALAR, "within": LEVELS, "outcome": TEXT,
        "difference": NUMBER, "low": NUMBER, "high": NUMBER, "p_adjusted": NUMBER, "verdict": TEXT,
        "seeds": COUNT, "standing": TEXT, "why": TEXT,
        "by_layer": _or_null(_table(layers | {"verdicts": _by_name(COUNT)})),
    }  # fmt: skip
    one = {
        "experiment": TEXT, "cells_complete": COUNT, "cells_total": COUNT,
        "conditions": _list(_table({"levels": LEVELS, "cells": COUNT, "measures": _by_name(spread)})),
        "references": _list(_table({"name": TEXT, "measures": _by_name(NUMBER)})),
        "contrasts": _list(_table(contrast)), "notes": _list(TEXT), "versions_mixed": _or_null(TEXT),
    }  # fmt: skip
    return _table({**FORMATTED, "store": TEXT, "experiments": _list(_table(one))})


def status() -> Schema:
    """Of `engine status --json`."""
    cell = {
        "cell": COUNT,
        "levels": LEVELS,
        "state": TEXT,
        "stages": _by_name(TEXT),
        "errors": _by_name(TEXT),
    }
    failure = {"stage": TEXT, "key": TEXT, "levels": LEVELS, "error": TEXT, "traceback": TEXT}
    signature = {"signature": TEXT, "cells": COUNT, "of": COUNT, "first": TEXT}
    at_work = {
        "cell": COUNT, "levels": LEVELS, "stage": TEXT, "time": TEXT, "done": COUNT, "total": COUNT,
        "text": TEXT,
    }  # fmt: skip
    one = {
        "name": TEXT, "executed": {"type": "boolean"},
        "stages": _by_name(_states("done", "running", "failed", "pending")), "cells": _list(_table(cell)),
        "failures": _list(_table(failure)), "at_work": _list(_table(at_work)), "probe_backends": _list(TEXT),
        "signatures": _list(_table(signature)), "engine": _or_null(TEXT), "git": _or_null(TEXT),
    }  # fmt: skip
    return _table({**FORMATTED, "store": TEXT, "experiments": _list(_table(one))})


def compare() -> Schema:
    """Of `engine compare --json`; differences are B − A."""
    number = dict.fromkeys(("a", "b", "difference", "low", "high", "lowest", "highest"), NUMBER)
    by_cell = _table({"levels": LEVELS, "differences": _by_name(NUMBER)})
    one = {
        "experiment": TEXT, "cells_in_both": COUNT, "from_equal_inputs": COUNT, "only_in_a": _list(LEVELS),
        "only_in_b": _list(LEVELS), "numbers": _list(_table({"number": TEXT, "cells": COUNT, **number})),
        "settings": _list(_table({"key": TEXT, "a": TEXT, "b": TEXT})),
    }  # fmt: skip
    experiments = _list(_table(one, {"by_cell": _list(by_cell)}))
    return _table({**FORMATTED, "a": TEXT, "b": TEXT, "experiments": experiments})


def power() -> Schema:
    """Of `engine power --json`."""
    design = {"seeds": COUNT, "examples": COUNT, "cells": COUNT, "flops": NUMBER, "detectable": NUMBER}
    sized = _table(design | {"power": NUMBER})
    wished = {"wished_difference": NUMBER, "wished_power": NUMBER}
    return _table(
        {**FORMATTED, **_contrast_power(), **wished, "designs": _list(sized), "cheapest": _or_null(sized)}
    )


SCHEMAS: dict[str, Callable[[], Schema]] = {
    function.__name__: function for function in (plan, data, results, status, compare, power)
}


def schema_of(command: str) -> Schema:
    """Give the schema of a command's output."""
    return {"$schema": DIALECT, "title": f"engine {command} --json", **SCHEMAS[command]()}
