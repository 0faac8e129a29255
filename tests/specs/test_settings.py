"""What is wrong with templates, labels and seeds is found when the spec is read, with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from facts import told

from specs import SpecError, load_spec, resolve

BASE = 'name = "x"\nmodel.id = "m"\ndata.source = "s"\n'


def problems(folder: Path, text: str) -> list[tuple[str, int | None, str]]:
    spec = folder / "x.toml"
    spec.write_text(BASE + text)
    with pytest.raises(SpecError) as caught:
        resolve(load_spec(spec))
    return [(problem.key, problem.line, problem.message) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "key", "line", "message"),
    [
        ('prompt.template = "{reply}"', "prompt.template", 4, "{reply} … context"),
        ('prompt.template = "a { b"', "prompt.template", 4, "brace … twice"),
        ('prompt.template = "{}"', "prompt.template", 4, "unknown field {}"),
        ('prompt.template = "{0}"', "prompt.template", 4, "unknown field {0}"),
        ('prompt.template = "{context.real}"', "prompt.template", 4, "unknown field {context.real}"),
        ('prompt.template = "{labels!r}"', "prompt.template", 4, "{labels} … {labels!r}"),
        ('prompt.system = "{context}"', "prompt.system", 4, "{context} … dimension or labels"),
        (
            'data.columns.label = "{dimension:>2000000000}"', "data.columns.label", 4,
            "found {dimension:>2000000000}",
        ),
        ('data.columns.explanation = "{0}"', "data.columns.explanation", 4, "unknown field {0}"),
        ('evaluate.data.columns.label = "{x}"', "evaluate.data.columns.label", 4, "unknown field {x}"),
        ('evaluate.labels = ["a", "b", "a"]', "evaluate.labels[2]", 4, '"a" is listed twice'),
        ('evaluate.labels = ["a", " "]', "evaluate.labels[1]", 4, '" "'),
        ('evaluate.labels = ["", "a"]', "evaluate.labels[0]", 4, 'found ""'),
        ('evaluate.labels = ["Good", "good"]', "evaluate.labels[1]", 4, "in case alone"),
        (
            'evaluate.counterfactuals = ["empty", "other", "empty"]', "evaluate.counterfactuals[2]", 4,
            "listed twice",
        ),
        (
            'evaluate = { counterfactuals = ["empty"], scoring = ["generation"] }', "evaluate.scoring", 4,
            "loglikelihood … generation",
        ),
        ('lora.target_modules = "(["', "lora.target_modules", 4, '"(["'),
        (
            'target = { content = "label+filler", placement = "before", separator = "" }',
            "target.separator", 4, '""',
        ),
        (
            '[target]\ncontent = "label+explanation"\nseparator = " "\n[factors.place]\n'
            'path = "target.placement"\nvalues = ["after", "interleaved"]',
            "target.separator", 6, 'found " "',
        ),
        (
            'target = { content = "label+filler", placement = "before", filler = " so.", separator = "." }',
            "target.filler", 4, '"."',
        ),
        (
            'target = { content = "label+filler", placement = "interleaved", filler = "ting: Ra", '
            'separator = "Rating: " }', "target.filler", 4, 'found "ting: Ra"',
        ),
        ("seeds = [0, 4294967296]", "seeds[1]", 4, "expected an integer >= 0 and <= 4294967295"),
        (
            'factors.wording.levels.a = {}\nfactors.wording.levels.b = { prompt.template = "{x}" }',
            "factors.wording.levels.b", 5, "unknown field {x}",
        ),
        (
            '[factors.wording]\npath = "prompt.system"\nvalues = ["fine", "{x}"]',
            "factors.wording.values[1]", 6, "unknown field {x}",
        ),
    ],
)  # fmt: skip
def test_mistakes(tmp_path: Path, text: str, key: str, line: int, message: str) -> None:
    ((found, place, said),) = problems(tmp_path, text)
    assert (found, place) == (key, line) and told(said, message)


def test_doubled_braces_and_plain_fields_are_fine(tmp_path: Path) -> None:
    spec = tmp_path / "x.toml"
    spec.write_text(BASE + 'prompt.template = "{{x}} {context}"\nseeds = [4294967295]\n')
    assert resolve(load_spec(spec)).cells
