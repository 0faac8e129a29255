"""Tables in parts: each is computed once, kept in a small file, and printed from there the next time."""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

Part = Callable[[int], Iterator[str]]
"""Yields the lines of a table of so many studies a cell."""
STUDIES = 2000
KEPT = Path("build/honesty")


def run(parts: Mapping[str, Part], words: str | None, arguments: list[str] | None = None) -> None:
    """Print some of the parts, or all; those that are kept with as many studies are not computed again."""
    parser = argparse.ArgumentParser(description=words, epilog=f"parts: {', '.join(parts)}")
    parser.add_argument("parts", nargs="*", metavar="PART", help="by default all")
    parser.add_argument("--studies", type=int, default=STUDIES, help="of a cell (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=KEPT, help="folder of finished parts (%(default)s)")
    chosen = parser.parse_args(arguments)
    for name in chosen.parts:
        if name not in parts:
            parser.error(f"{name}: expected a part, one of {', '.join(parts)}")
    for name in chosen.parts or parts:
        print(*_lines(name, parts[name], chosen.studies, chosen.out), "", sep="\n", flush=True)


def _lines(name: str, part: Part, studies: int, out: Path) -> list[str]:
    file = out / f"{name}.json"
    if file.exists():
        kept = json.loads(file.read_text("utf-8"))
        if kept["studies"] == studies:
            return list(kept["lines"])
    start = time.perf_counter()
    lines = list(part(studies))
    kept = {"studies": studies, "seconds": round(time.perf_counter() - start, 1), "lines": lines}
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return lines


def table(head: str, columns: list[str]) -> Iterator[str]:
    """Yield the head of a table."""
    yield f"| {head} | {' | '.join(columns)} |"
    yield f"| --- |{' --- |' * len(columns)}"


def row(head: str, cells: list[str]) -> str:
    """Return a row of a table."""
    return f"| {head} | {' | '.join(cells)} |"
