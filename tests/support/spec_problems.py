"""What is wrong with a small spec, when text is added to it."""

from pathlib import Path

import pytest

from specs import Problem, SpecError, load_spec, resolve

BASE = """\
name = "demo"
model.id = "m"
data.source = "s"
[factors.target]
levels.label = {}
levels.why = { target.content = "label+explanation" }
[factors.rank]
path = "lora.r"
values = [8, 16]
"""


def problems_of(folder: Path, text: str, base: str = BASE) -> list[Problem]:
    path = folder / "demo.toml"
    path.write_text(base + text)
    with pytest.raises(SpecError) as caught:
        resolve(load_spec(path))
    assert all(problem.file == path for problem in caught.value.problems)
    return caught.value.problems
