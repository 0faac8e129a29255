"""A small spec with `[annotate]` over unrated conversations, for a server of `chat_server`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any


def write_conversations(folder: Path, count: int) -> None:
    rows = [{"context": f"message {n}", "response": f"reply {n}"} for n in range(count)]
    (folder / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_spec(
    folder: Path,
    url: str,
    *,
    conversations: int = 4,
    table: str = "",
    annotator: str = "",
    more: str = "",
    strategies: tuple[str, ...] = ('name = "plain"',),
) -> Path:
    """Write asked.jsonl and spec.toml: annotator `one`, dimension `naturalness`, output rated.jsonl."""
    write_conversations(folder, conversations)
    spec = folder / "spec.toml"
    spec.write_text(
        f"""
name = "rating"
model.id = "someone/model"
data.source = "asked.jsonl"

[annotate]
output = "rated.jsonl"
dimensions = ["naturalness"]
{table}

[[annotate.annotators]]
name = "one"
endpoint = "{url}"
model = "small"
backoff = 0.01
{annotator}

"""
        + "".join(f"[[annotate.strategies]]\n{strategy}\n" for strategy in strategies)
        + more
    )
    return spec


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def number_of(body: dict[str, Any]) -> int:
    """Which conversation a request is about."""
    found = re.findall(r"Message: message (\d+)\n", json.dumps(body["messages"]).replace("\\n", "\n"))
    return int(found[0])


def attempt_of(body: dict[str, Any]) -> int:
    return (len(body["messages"]) + 1) // 2
