"""No setting passes in silence: it changes some stage's key, or a plan says that nothing reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
from other_values import OTHER
from small_study import TARGETS

import engine
from engine.errors import EngineError
from engine.planning import unread_settings as unread
from engine.planning.stage_keys import Keys
from engine.planning.unread_settings import unread_settings
from engine.planning.warnings import plan_warnings
from specs import SpecError, load_spec, resolve
from specs.tables.experiment import TABLE_STAGES
from specs.toml.known_keys import tables

ALONE = "factors.target=null"
OVERLAYS = ("evaluate.data", "evaluate.prompt")  # of the keys of [data] and [prompt]
# Studies in which many a setting has nothing to act on.
STUDIES: dict[str, tuple[str, ...]] = {
    "two targets": (),
    "label, tuned lens": (ALONE, 'probe.lens="tuned"'),
    "explanation first, stops early": (
        ALONE, 'target.content="label+explanation"', 'target.placement="before"', "train.early_stopping=1",
    ),
    "filler, generation": (ALONE, 'target.content="label+filler"', 'evaluate.scoring=["generation"]'),
    "untrained": ("train.steps=0",),
    "not probed, other test data": ("probe.enabled=false", 'evaluate.data.dimension="b"'),
    "by tokens, next token": (
        "train.steps=null", "train.tokens=200", 'probe.watch="next"', 'probe.statistics=["entropy"]',
        "evaluate.base_model=false",
    ),
}  # fmt: skip
# Of the spec, lest it holds the other value already.
DEFAULTS = tuple(
    f"{key}=null" for key in ("model.dtype", "train.precision", "train.batch_size", "prompt.chat_template")
)
# Further keys, whose other value is no plain replacement in every study.
FURTHER: dict[str, Any] = {
    "train.tokens": 100,
    "train.label_tokens": 50,
    "evaluate.sampling.temperature": 0.5,
    "evaluate.sampling.samples": 2,
    "evaluate.sampling.top_p": 0.5,
    "evaluate.sampling.constrained": True,
    "evaluate.counterfactuals": ["empty"],
    "evaluate.neutral_text": "builtin",
    "evaluate.task_examples": 3,
    "evaluate.task_shots": 1,
    "evaluate.task_folder": "/",
    "evaluate.inspect.samples": 3,
    "evaluate.inspect.max_tokens": 3,
    "evaluate.inspect.seed": 1,
    "probe.at": [0, 1.0],
    "probe.lens": "tuned",
    "probe.differences": True,
    "lora.trained_tokens": ["<pad>"],
    "data.fingerprint": "abc",
    "data.filter": {"topic": "a"},
    "prompt.messages": True,
    "probe.against": ["base"],
    "probe.tuned.corpus": "builtin",
    "probe.tuned.fitted_on": "base",
    "probe.jacobian.corpus": "builtin",
    "probe.jacobian.fitted_on": "base",
    "probe.jacobian.path": "/lens.safetensors",
}
# Keys whose other value adds or leaves out a stage, needs a package, or names another model or another file.
ELSEWHERE = {
    "model.id", "model.gguf_file", "model.revision", "data.source", "probe.enabled", "evaluate.base_model",
    "evaluate.tasks", "evaluate.inspect.tasks",
}  # fmt: skip


def only_says_how_to_run(key: str) -> bool:
    table, _, name = key.rpartition(".")
    field = getattr(attrs.fields(tables()[table]), name)
    return field.metadata.get("stages", TABLE_STAGES.get(table, ("some",))) == ()


def spelled(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, separators=(", ", " = "))


def test_every_key_that_results_can_hang_on_is_tried() -> None:
    known = {
        f"{table}.{name}"
        for table, cls in tables().items()
        if table.partition(".")[0] in TABLE_STAGES
        and not table.startswith(("evaluate.data", "evaluate.prompt"))
        for name in attrs.fields_dict(cls)
        if f"{table}.{name}" not in tables()
    }
    assert known == {*OTHER, *FURTHER, *ELSEWHERE}


@pytest.mark.parametrize("study", STUDIES)
def test_a_setting_changes_a_key_or_is_told(write_spec, study: str) -> None:
    spec, beside, held = write_spec(), (*DEFAULTS, *STUDIES[study]), list[str]()

    def cells(*overrides: str) -> tuple[list[Any], list[dict[str, str]]]:
        """The settings and the keys of all cells."""
        matrix = resolve(load_spec(spec, (*beside, *overrides)))
        of = Keys(matrix)
        tables = [matrix.table(table, cell) for table in TABLE_STAGES for cell in matrix.cells]
        return tables, [of.of(cell) for cell in matrix.cells]

    def told(*overrides: str) -> str:
        try:
            return " ".join(plan_warnings(engine.plan(spec, (*beside, *overrides))))
        except (SpecError, EngineError) as refusal:
            return str(refusal)

    (settings, before), unread = cells(), {}
    for key, value in (OTHER | FURTHER).items():
        override = f"{key}={spelled(value)}"
        try:
            others, after = cells(override)
        except (SpecError, EngineError):  # a refusal
            continue
        if others == settings:  # each level sets it, or it says what is so anyhow
            held.append(key)
        elif not only_says_how_to_run(key) and after == before:
            unread[key] = override
    together = told(*unread.values())
    silent = [key for key in unread if key not in together and key not in told(unread[key])]
    assert unread and silent == []
    assert {*held} <= {
        "data.columns.explanation", "target.content", "target.placement", "probe.lens", "probe.statistics",
        "evaluate.scoring",
    }  # fmt: skip


LEVELS = """
[factors.target.levels]
label = { target.content = "label", target.placement = "before" }
both = { target.content = "label+explanation", target.placement = "after" }
"""
CROSSED = """
[factors.content]
path = "target.content"
values = ["label", "label+explanation"]
[factors.place.levels]
before = { target.placement = "before", train.lr = 1e-3 }
after = { target.placement = "after", train.lr = 2e-3 }
"""


def test_a_setting_of_a_level_is_told_with_its_place(write_spec) -> None:
    """What only spells out what holds anyhow is not, nor what some cell reads."""
    spec = write_spec()
    spec.write_text(spec.read_text().replace(TARGETS, LEVELS))
    options = ("target.filler=x", "train.epochs=2")
    said = [sentence.partition("; ")[0] for sentence in unread_settings(engine.plan(spec, options))]
    assert said == [
        'target.filler: changes no result, for it is of target.content = "label+filler" alone',
        "train.epochs: changes no result, for train.steps, tokens or label_tokens says how long is trained",
        "factors.target.levels.label (target.placement): changes no result, for target.content = "
        '"label" has no explanation',
    ]
    spec.write_text(spec.read_text().replace(LEVELS, CROSSED))
    assert list(unread_settings(engine.plan(spec))) == []


def test_many_levels_take_one_look_for_each_key(write_spec, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep's plan stays quick, and its sentence short."""
    made = []
    monkeypatch.setattr(unread, "Keys", lambda *options: made.append(options) or Keys(*options))
    levels = "".join(f'l{i} = {{ lora.r = {i + 1}, target.filler = "x{i}" }}\n' for i in range(20))
    spec = write_spec()
    spec.write_text(spec.read_text().replace(TARGETS, f"[factors.size.levels]\n{levels}"))
    plan = engine.plan(spec)
    (said,) = unread_settings(plan)
    assert (
        said.startswith("factors.size.levels.l0 (target.filler), ")
        and " and 12 more: change no result" in said
    )
    assert len(made) < 20


def test_ready_studies_set_nothing_in_vain() -> None:
    studies = sorted((Path(__file__).parents[3] / "specs" / "studies").glob("*.toml"))
    assert len(studies) > 30
    assert {
        study.name: said for study in studies if (said := list(unread_settings(engine.plan(study))))
    } == {}
