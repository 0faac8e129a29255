"""What a plan says of levels and rules that make no difference, and of places that have moved."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import engine
from facts import told

import engine as python
from engine.planning.warnings import plan_warnings
from engine.stages.geometry_measures import MEASURES, measured
from specs.common.names import SIMILARITIES
from specs.common.thresholds import FEWEST_POINTS, FEWEST_SIMILAR
from store.analysis.gram import similarity_values

SAME = '[factors.rank]\npath = "lora.r"\nvalues = [4, 8]\n[factors.way.levels]\nplain = {}\n'


def warnings(spec: Path, *overrides: str) -> str:
    return "\n".join(plan_warnings(python.plan(spec, overrides)))


def test_levels_that_resolve_to_the_same_settings_are_told(write_spec) -> None:
    spec = write_spec(SAME + "longer = { train.lr = 1e-3 }\ndefault = { train.lr = 2e-4 }\n")
    said = warnings(spec)
    assert told(said, "factors.way", '"plain"', '"default"', "same settings")
    assert said.count("same settings") == 1 and "rank" not in said
    # Execution alone differs here, which changes no result.
    said = warnings(write_spec(SAME + "other = { evaluate.batch_size = 2 }\n"))
    assert told(said, '"plain"', '"other"', "same settings")


def test_zipped_factors_and_ones_that_do_not_apply_are_no_repetition(write_spec) -> None:
    assert warnings(write_spec(SAME + "b = {}\n[rules]\nzip = [['rank', 'way']]\n")) == ""
    only = 'only_when = { target = "label+explanation" }\n'
    text = f'[factors.rank]\npath = "lora.r"\nvalues = [4, 8]\n{only}'
    assert warnings(write_spec(text)) == ""


def test_a_factor_of_one_level_that_changes_nothing_is_told(write_spec) -> None:
    assert told(warnings(write_spec(SAME)), "factors.way", "changes nothing")
    spec = write_spec('[factors.one]\npath = "train.lr"\nvalues = [1e-3]\n')
    assert "changes nothing" not in warnings(spec)
    assert "changes nothing" in warnings(spec, "train.lr=1e-3")


def test_what_is_kept_from_no_exclusion_is_told(write_spec) -> None:
    spec = write_spec('[rules]\ninclude = [{ target = "label" }]\n')
    assert told(warnings(spec), "rules.include", "no rules.exclude")
    assert "rules.include" not in warnings(spec, 'rules.exclude=[{target="label+explanation"}]')


def test_a_store_in_the_current_folder_is_named_and_can_be_gone_on_with(
    write_spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_spec(name="mine")
    text = spec.read_text()
    inside = tmp_path / "inside" / "mine.toml"
    inside.parent.mkdir()
    inside.write_text("".join(line + "\n" for line in text.splitlines() if not line.startswith("store")))
    (tmp_path / "outside").mkdir()
    monkeypatch.chdir(tmp_path / "outside")
    one = ("--set", "seeds=[0]", "--only", "target=label")
    engine("execute", inside, *one, "--store", "stores/mine")
    assert (tmp_path / "outside/stores/mine").is_dir()
    output = engine("execute", inside, *one, "--dry-run").output
    assert told(output, "1", "would run", "inside/stores/mine")
    assert told(engine("plan", inside).output, "warning", "inside/stores/mine", "--store", "stores/mine")
    assert "--store" not in engine("plan", inside, "--store", "stores/mine").output
    assert "Nothing to do" in engine("execute", inside, *one, "--store", "stores/mine").output
    shutil.move("stores/mine", tmp_path / "inside/stores/mine")
    assert "Nothing to do" in engine("execute", inside, *one).output


def test_a_file_that_the_former_rule_would_have_found_is_named(
    write_spec, tmp_path: Path, rated_file: Path
) -> None:
    base = write_spec(name="base")
    (tmp_path / "below").mkdir()
    shutil.copy(rated_file, tmp_path / "below" / "rated.jsonl")
    base.write_text(base.read_text().replace(str(rated_file), "rated.jsonl"))
    spec = tmp_path / "below" / "spec.toml"
    spec.write_text('extends = "../base.toml"\nname = "below"\n')
    output = engine("plan", spec).output
    assert told(output, "not there yet", "rated.jsonl", "relative to the file", "below/rated.jsonl")


def test_counterfactuals_that_no_cell_can_have_are_told(write_spec) -> None:
    spec = write_spec()
    asked = 'evaluate.counterfactuals=["empty"]'
    assert told(warnings(spec, asked), "evaluate.counterfactuals", "no cell", "before")
    assert "counterfactuals" not in warnings(spec, asked, 'target.placement="before"')


def test_declared_outcomes_of_texts_and_tasks_are_told_where_nothing_measures_them(
    write_spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.planning.harness.metadata.version", lambda _: "1")
    spec = write_spec()
    neutral, task = ("analysis.primary=kl_base",), ("analysis.primary=task_arc_easy_acc",)
    assert told(warnings(spec, *neutral), "analysis.primary", "kl_base", "evaluate.neutral_text")
    assert warnings(spec, *neutral, "evaluate.neutral_text=builtin") == ""
    assert told(warnings(spec, *task), "analysis.primary", "task_arc_easy_acc", "evaluate.tasks")
    assert told(warnings(spec, *task, 'evaluate.tasks=["mmlu"]'), "analysis.primary", "group")
    assert warnings(spec, *task, 'evaluate.tasks=["arc_easy"]') == ""


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("probe.at=[0,1.0]", "probe.enabled=false"), ("probe.at", "probe.enabled")),
        (("probe.at=[0,1.0]", "train.steps=0"), ("probe.at", "train.steps")),
        (("prompt.template=Rate:",), ("prompt.template", "{response}")),
        (("evaluate.prompt.template=Rate:",), ("evaluate.prompt.template", "{response}")),
        (('prompt.template="{{response}}:"',), ("prompt.template", "{response}")),
        (("evaluate.sampling.temperature=0.7",), ("evaluate.sampling", "samples")),
        (
            (
                "factors.target=null",
                'target.content="label+filler"',
                'lora.modules_to_save=["embed_tokens"]',
                'lora.trained_tokens=["<pad>"]',
            ),
            ("lora.trained_tokens", '"<pad>"', "target.filler"),
        ),
    ],
)
def test_settings_that_nothing_reads_are_told(
    write_spec, overrides: tuple[str, ...], said: tuple[str, ...]
) -> None:
    spec = write_spec()
    assert warnings(spec) == "" and told(warnings(spec, *overrides), *said)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ('lora.target_modules=["q_prjo","v_proj"]', ("lora.target_modules", '"q_prjo"', '"q_proj"')),
        ('lora.modules_to_save=["embed_token"]', ("lora.modules_to_save", '"embed_token"', '"embed_tokens"')),
        ('lora.target_modules=["self_attn.q_proj"]', ()),
        ('lora.modules_to_save=["lm_head"]', ()),
        ("lora.target_modules=.*q_prjo", ()),  # a pattern
        ('lora.modules_to_save=["embedding"]', ()),  # like "embed_tokens", but no slip of a key
        ('lora.target_modules=["something.else"]', ()),  # which the training says
    ],
)
def test_names_of_modules_that_look_misspelt_are_told(
    write_spec, override: str, said: tuple[str, ...]
) -> None:
    lines = [line for line in warnings(write_spec(), override).splitlines() if "the weights of" in line]
    assert told(" ".join(lines), *said) if said else not lines


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ('evaluate.neutral_text="builtin"', 'lora.modules_to_save=["lm_head"]'),
            ("lora.modules_to_save", "lm_head", "evaluate.neutral_text"),
        ),
        (
            (
                'lora.modules_to_save=["embed_tokens"]',
                'lora.trained_tokens=["<pad>"]',
                "train.weight_decay=0.1",
            ),
            ("train.weight_decay", "0.1", "lora.trained_tokens"),
        ),
        (
            ('lora.modules_to_save=["embed_tokens"]', 'lora.trained_tokens=["<pad>","<pad>"]'),
            ("lora.trained_tokens[1]", "twice"),
        ),
    ],
)
def test_what_a_training_would_fail_of_is_refused_by_the_plan(
    write_spec, overrides: tuple[str, ...], said: tuple[str, ...]
) -> None:
    arguments = [part for text in overrides for part in ("--set", text)]
    assert told(engine("plan", write_spec(), *arguments, code=2).output, *said)


def test_a_wording_that_shows_nothing_is_told_once_and_where_it_is_set(write_spec) -> None:
    wordings = """
[factors.wording.levels]
own = {}
empty = { evaluate.prompt.template = "Rate it:" }
"""
    said = warnings(write_spec(wordings))
    assert told(said, "factors.wording.levels.empty", "{response}") and said.count("shows nothing") == 1
    said = warnings(write_spec(), "prompt.template=Rate:", "evaluate.batch_size=2")
    assert said.count("shows nothing") == 1


GEOMETRY = (
    '[probe]\nagainst = ["base"]\ngeometry = ["anisotropy", "cka", "procrustes", "gram"]\nexamples = {}\n'
)


@pytest.mark.parametrize(
    ("changes", "count", "said"),
    [
        ([], 2, ["probe.examples: found 2", '"anisotropy" of probe.geometry needs 3', '"cka", "procrustes"']),
        ([], 4, ["probe.examples: found 4", '"cka", "procrustes" of probe.geometry need 5']),
        ([], 5, []),
        (["data.test=4"], 5, ["data.test: found 4", "need 5"]),
        (['probe.geometry=["anisotropy"]'], 4, []),
        (["probe.enabled=false"], 2, []),
    ],
)
def test_geometry_of_too_few_examples_is_told(
    write_spec, changes: list[str], count: int, said: list[str]
) -> None:
    found = warnings(write_spec(GEOMETRY.format(count)), *changes)
    assert all(part in found for part in said) and ("of probe.geometry" in found) == bool(said), found


def test_a_measure_needs_as_many_examples_as_the_plan_says() -> None:
    generator = np.random.default_rng(0)
    for name in [*MEASURES, *SIMILARITIES]:
        fewest = FEWEST_SIMILAR if name in SIMILARITIES else FEWEST_POINTS
        for count in (fewest - 1, fewest):
            points, others = generator.normal(size=(2, count, 7))
            if name in MEASURES:
                values = measured(points, [name])[name]
            else:
                values = similarity_values(name, points @ points.T, others @ others.T)
            assert np.isfinite(values).all() == (count == fewest), (name, count)


def test_one_position_under_two_names_is_told(write_spec) -> None:
    spec = write_spec("[probe]\npositions = ['prompt_end', 'label', -1]\n")
    assert told(warnings(spec), "probe.positions", '-1 is "prompt_end"')
    assert "positions" not in warnings(spec, 'probe.positions=["prompt_end", -2, 0]')


STEER = """
[probe]
differences = true
against = ["base", { target = "label" }]
[[interventions]]
name = "moved"
kind = "steer"
cells = { target = "label" }
donor = { target = "label" }
"""


def test_an_intervention_that_changes_no_cell_is_told(write_spec) -> None:
    spec = write_spec(STEER)
    assert told(warnings(spec), "interventions[0]", '"moved" changes no cell')
    spec.write_text(spec.read_text().replace('cells = { target = "label" }\n', ""))
    assert "interventions" not in warnings(spec)


def test_a_difference_behind_an_embedding_that_no_cell_trains_is_told(write_spec) -> None:
    spec = write_spec(STEER.replace('cells = { target = "label" }\n', "") + "from_layer = 0\n")
    assert told(warnings(spec), "interventions[0].from_layer", "found 0", "no cell trains")
    assert "from_layer" not in warnings(spec, 'lora.target_modules=["q_proj", "embed_tokens"]')
    spec.write_text(spec.read_text().replace("from_layer = 0", "from_layer = 1"))
    assert "from_layer" not in warnings(spec)


def test_a_difference_of_another_token_than_the_steered_one_is_told(write_spec) -> None:
    """Interventions call the token that predicts the label `prompt_end`; the probe calls it `label`."""
    at = 'positions = ["prompt_end"]\n'
    spec = write_spec(STEER.replace('cells = { target = "label" }\n', "") + at)
    first = 'factors.target.levels."label+explanation".target.placement="before"'
    watched = 'probe.positions=["prompt_end", "label"]'
    assert warnings(spec, watched) == ""
    assert told(warnings(spec, watched, first), "interventions[0].from_positions", '"prompt_end"', '"label"')
    spec.write_text(spec.read_text() + 'from_positions = ["label"]\n')
    assert warnings(spec, watched, first) == ""
