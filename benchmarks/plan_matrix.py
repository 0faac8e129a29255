"""How long does a spec of 100,000 cells take to load and resolve, and to look up in?"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from specs import load_spec, resolve

BASE = 'name = "bench"\nmodel.id = "m"\ndata.source = "s"\nseeds = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\n'
PATHS = ("train.steps", "lora.r", "train.batch_size", "data.train")
RULES = """
[rules]
exclude = [{ f0 = [2, 3], f1 = [1, 2] }, { f2 = 1 }, { f2 = 2, f3 = 10 }]
include = [{ seed = [0, 1] }]
[factors.conditional]
path = "train.epochs"
values = [1, 2]
only_when = { f0 = 1, f1 = [1, 2, 3] }
[[contrasts]]
factor = "f0"
baseline = 1
"""


def seconds(action: Callable[[], object], repeats: int = 5) -> float:
    """The fastest of several tries."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    factors = "".join(
        f'[factors.f{i}]\npath = "{path}"\nvalues = {list(range(1, 11))}\n' for i, path in enumerate(PATHS)
    )
    print(f"{'spec':<8}{'cells':>9}{'load':>9}{'resolve':>9}{'tables':>9}{'pairs':>9}   seconds")
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("product", BASE + factors), ("rules", BASE + factors + RULES)):
            path = Path(folder, f"{name}.toml")
            path.write_text(text)
            spec = load_spec(path)
            matrix = resolve(spec)
            times = (
                seconds(lambda path=path: load_spec(path)),
                seconds(lambda spec=spec: resolve(spec)),
                seconds(lambda matrix=matrix: [matrix.table("train", cell) for cell in matrix.cells]),
                seconds(matrix.pairs),
            )
            print(f"{name:<8}{len(matrix.cells):>9,}" + "".join(f"{t:>9.4f}" for t in times))


if __name__ == "__main__":
    main()
