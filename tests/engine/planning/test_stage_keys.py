"""Stage keys: what must change them changes exactly the stages that read it, and nothing else does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from other_values import OTHER

import specs
from engine.errors import DataError
from engine.planning.stage_keys import Keys
from specs import load_spec, resolve
from specs.tables.experiment import TABLE_STAGES
from specs.toml.known_keys import field_types, tables

KEYS = ("data", "test_data", "base", "train", "evaluate", "lens", "probe", "intervene")  # of BASE
# Which keys follow when a stage's own result changes.
FOLLOWERS = {
    "data": set(KEYS),
    "train": {"train", "evaluate", "lens", "probe", "intervene"},
    "evaluate": {"evaluate"},
    "lens": {"lens", "probe"},
    "jacobian": {"jacobian", "probe"},
    "probe": {"probe"},
    "base_tasks": set(),  # which the cells of BASE do not have
    "base_inspect": set(),  # which the cells of BASE do not have
    "inspect": set(),  # which the cells of BASE do not have
    "neutral": set(),  # which the cells of BASE do not have
    "tasks": set(),  # which the cells of BASE do not have
    "along": set(),  # which the cells of BASE do not have
    "differences": set(),  # nor this
    "intervene": {"intervene"},
}
BASE = """
name = "base"
seeds = [3]
[model]
id = "{model}"
[data]
source = "{data}"
[train]
steps = 5
early_stopping = 1
[target]
content = "label+explanation"
[probe]
lens = "tuned"
[[interventions]]
name = "off"
kind = "mask"
"""
# What else a setting needs so that something reads it.
READ_BESIDE = {
    "train.epochs": ("train.steps=null",),
    "target.filler": ('target.content="label+filler"',),
    "probe.attribution_per_head": ("probe.attribution=true",),
}
# Covered by tests of their own: what they change is content or the presence of a stage, not a setting.
ELSEWHERE = {
    "model.id", "model.gguf_file", "model.revision", "data.source", "data.fingerprint", "data.filter",
    "probe.enabled", "probe.lens", "probe.jacobian.path", "probe.jacobian.corpus",
    "probe.jacobian.fitted_on", "probe.tuned.corpus", "probe.tuned.fitted_on",
    "probe.against", "probe.differences", "probe.at", "prompt.messages", "train.tokens",
    "train.label_tokens", "evaluate.counterfactuals", "evaluate.sampling", "evaluate.neutral_text",
    "evaluate.inspect", "evaluate.task_examples", "evaluate.task_folder", "evaluate.task_shots",
    "evaluate.tasks", "lora.trained_tokens",
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("files")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    (folder / "rated.jsonl").write_text("{}\n")
    return {"model": str(folder / "model"), "data": str(folder / "rated.jsonl"), "folder": str(folder)}


def keys_of(text: str, folder: str | Path, *overrides: str) -> list[dict[str, str]]:
    path = Path(folder) / "spec.toml"
    path.write_text(text)
    matrix = resolve(load_spec(path, overrides))
    keys = Keys(matrix)
    return [keys.of(cell) for cell in matrix.cells]


def toml(value: Any) -> str:
    """Spell plain data as TOML, which for one value is JSON but for the colons of its tables."""
    return json.dumps(value, ensure_ascii=False, separators=(", ", " = "))


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in (*KEYS, "jacobian") if before.get(name) != after.get(name)}


def readers(key: str) -> tuple[str, ...]:
    table, _, name = key.partition(".")
    while "." in name:  # the keys of a table inside a table are read as that table is
        name = name.partition(".")[0]
    field = getattr(attrs.fields(tables()[table]), name)
    return field.metadata.get("stages", TABLE_STAGES[table])


def test_the_list_of_settings_is_complete() -> None:
    inner = ("data.columns", "probe.tuned", "probe.jacobian", "target.loss")
    known = {
        f"{table}.{name}"
        for table in (*TABLE_STAGES, *inner)
        for name in field_types(tables()[table])
        if f"{table}.{name}" not in (*inner, "evaluate.base_model", "evaluate.data", "evaluate.prompt")
    }
    assert known == set(OTHER) | ELSEWHERE


@pytest.mark.parametrize("key", OTHER)
def test_a_setting_changes_the_stages_that_read_it_and_their_followers(
    files: dict[str, str], key: str
) -> None:
    text, beside = BASE.format(**files), READ_BESIDE.get(key, ())
    (before,) = keys_of(text, files["folder"], *beside)
    (after,) = keys_of(text, files["folder"], *beside, f"{key}={toml(OTHER[key])}")
    expected: set[str] = set().union(*(FOLLOWERS[stage] for stage in readers(key)))
    table = key.partition(".")[0]
    if (
        (table == "model" and readers(key))
        or key == "target.prefix"
        or ("evaluate" in readers(key) and table != "target")
    ):
        expected |= {"base"}  # the untrained model, asked for the label alone
    without = set() if key.startswith("probe.jacobian") else expected - {"jacobian"}
    assert changed(before, after) == without
    # A Jacobian lens beside the tuned one: it follows what that follows, but for the settings of each.
    both = (*beside, 'probe.lens=["tuned", "jacobian"]')
    (before,) = keys_of(text, files["folder"], *both)
    (after,) = keys_of(text, files["folder"], *both, f"{key}={toml(OTHER[key])}")
    if {"data", "train", "jacobian"} & set(readers(key)):
        expected |= {"jacobian", "probe"}
    assert changed(before, after) == expected


def test_a_chat_shown_message_by_message_changes_what_reads_prompts(files: dict[str, str]) -> None:
    text = BASE.format(**files)
    chats = ('data.columns.messages="chat"', 'prompt.template="Why?"')
    (before,) = keys_of(text, files["folder"], *chats)
    (after,) = keys_of(text, files["folder"], *chats, "prompt.messages=true")
    expected: set[str] = set().union(*(FOLLOWERS[stage] for stage in TABLE_STAGES["prompt"]))
    assert changed(before, after) == (expected | {"base"}) - {"jacobian"}


def test_what_is_measured_along_a_training_is_read_by_that_alone(files: dict[str, str]) -> None:
    """`probe.at` changes no other key, and what changes an evaluation or a probe changes it, too."""
    text, logit = BASE.format(**files), 'probe.lens="logit"'
    options = (logit, "probe.at=[0, 0.5, 1.0]")
    (without,), (before,) = keys_of(text, files["folder"], logit), keys_of(text, files["folder"], *options)
    assert {**before, **without} == before and {*before} - {*without} == {"along"}
    for value, follows in (("[0.0, 0.5, 1.0]", False), ("[0, 0.4, 1.0]", True), ("[0, 5]", True)):
        (after,) = keys_of(text, files["folder"], logit, f"probe.at={value}")
        assert changed(before, after) == set() and (before["along"] != after["along"]) == follows
    for key, other in OTHER.items():
        beside = (*options, *READ_BESIDE.get(key, ()))
        (before,) = keys_of(text, files["folder"], *beside)
        (after,) = keys_of(text, files["folder"], *beside, f"{key}={toml(other)}")
        reached = {*readers(key)} & {"data", "train", "along"} and not key.startswith(
            ("probe.tuned", "probe.jacobian")
        )
        assert (before["along"] != after["along"]) == bool(reached), key
    for off in ("probe.enabled=false", "train.steps=0"):
        (after,) = keys_of(text, files["folder"], *options, off)
        assert "along" not in after


def test_a_neutral_text_is_known_by_what_it_says(files: dict[str, str], tmp_path: Path) -> None:
    """It changes no other key, and follows the training alone."""
    text, folder, built_in = BASE.format(**files), files["folder"], 'evaluate.neutral_text="builtin"'
    (without,), (before,) = keys_of(text, folder), keys_of(text, folder, built_in)
    assert {**before, **without} == before and {*before} - {*without} == {"neutral"}
    for name, words in (("a.txt", "some words"), ("b.txt", " some words\n"), ("c.txt", "other words")):
        (tmp_path / name).write_text(words)
    one, same, other = (
        keys_of(text, folder, f'evaluate.neutral_text="{tmp_path / name}.txt"')[0]["neutral"]
        for name in "abc"
    )
    assert one == same and len({one, other, before["neutral"]}) == 3
    others = {"train.lr=0.5": True, 'evaluate.too_long="drop"': False, "probe.top_k=1": False}
    for change, follows in others.items():
        (after,) = keys_of(text, folder, built_in, change)
        assert (after["neutral"] != before["neutral"]) == follows, change


def test_tasks_are_known_by_the_harness_and_what_it_is_asked(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They change no other key; those of the untrained model do not follow the training."""
    monkeypatch.setattr("engine.planning.harness.metadata.version", lambda _: "1")
    text, folder, asked = BASE.format(**files), files["folder"], 'evaluate.tasks=["a","b"]'
    (without,), (before,) = keys_of(text, folder), keys_of(text, folder, asked)
    assert {**before, **without} == before and {*before} - {*without} == {"base_tasks", "tasks"}

    def follow(*changes: str) -> set[str]:
        (after,) = keys_of(text, folder, asked, *changes)
        return {name for name in ("base_tasks", "tasks") if after.get(name) != before[name]}

    both = {"base_tasks", "tasks"}
    (tmp_path / "one.yaml").write_text("task: a")
    place = f'evaluate.task_folder="{tmp_path}"'
    for change in ('evaluate.tasks=["a"]', "evaluate.task_examples=3", "evaluate.task_shots=0", place):
        assert follow(change) == both, change
    assert not follow('evaluate.tasks=["b","a","b"]') and not follow("evaluate.batch_size=3")
    assert follow("train.lr=0.5") == {"tasks"} and not follow("probe.top_k=1")
    assert follow('model.dtype="float32"') == both and follow("evaluate.base_model=false") == {"base_tasks"}
    (known,) = keys_of(text, folder, asked, place)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "one.pyc").write_text("made by a run")
    assert keys_of(text, folder, asked, place) == [known]
    (tmp_path / "one.yaml").write_text("task: b")
    (after,) = keys_of(text, folder, asked, place)
    assert after["tasks"] != known["tasks"]
    monkeypatch.setattr("engine.planning.harness.metadata.version", lambda _: "2")
    assert follow() == both


TARGETS = """
[factors.target.levels]
label = { target.content = "label" }
both = { target.content = "label+explanation" }
"""


def test_fitted_lenses_are_known_by_their_texts_and_model(files: dict[str, str], tmp_path: Path) -> None:
    """Shared where they are fitted on the model without adapter; a text by what it says, not by its path."""
    folder = files["folder"]
    text = BASE.format(**files).replace('"tuned"', '["tuned", "jacobian"]') + TARGETS
    for name, words in (("a.txt", "some words"), ("b.txt", "some words"), ("c.txt", "other words")):
        (tmp_path / name).write_text(words)

    def keys(stage: str, **settings: str) -> list[str]:
        table = {"lens": "tuned", "jacobian": "jacobian"}[stage]
        options = [f"probe.{table}.{key}={value}" for key, value in settings.items()]
        return [cell[stage] for cell in keys_of(text, folder, *options)]

    for stage in ("lens", "jacobian"):
        own, plain = keys(stage), keys(stage, fitted_on="trained", corpus="train")
        assert own == plain and len(set(own)) == 2
        assert len(set(keys(stage, fitted_on="base"))) == 1
        a, b, c = (keys(stage, corpus=tmp_path / f"{name}.txt") for name in "abc")
        assert a == b and len({*own, *a, *c, *keys(stage, corpus="builtin")}) == 8
        shared = keys(stage, corpus="builtin", fitted_on="base")
        assert len(set(shared)) == 1
        changes = (
            "data.train=3",
            'prompt.template="{context} {response}"',
            "train.lr=0.5",
            "train.max_length=99",
        )
        for change in changes:  # nothing of them has a part in a text of its own
            on = f"probe.{'tuned' if stage == 'lens' else stage}"
            options = (f"{on}.corpus=builtin", f"{on}.fitted_on=base", change)
            assert [cell[stage] for cell in keys_of(text, folder, *options)] == shared, change


def test_a_jacobian_lens_follows_the_release_of_transformers(
    files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text, both = BASE.format(**files), 'probe.lens=["tuned", "jacobian"]'
    (before,) = keys_of(text, files["folder"], both)
    monkeypatch.setattr("engine.planning.lens_keys.metadata.version", lambda _: "0.1")
    (after,) = keys_of(text, files["folder"], both)
    assert changed(before, after) == {"jacobian", "probe"}


def test_what_a_probe_is_compared_with_is_in_its_key_alone(files: dict[str, str]) -> None:
    """The training of the other cell counts, and so does its name."""
    text = (
        BASE.format(**files)
        + """
[factors.target.levels]
label = { target.content = "label" }
both = { target.content = "label+explanation" }
"""
    )
    options = ("probe.lens=logit", 'probe.against=[{target = "label"}]')
    for cell, (before, after) in enumerate(
        zip(keys_of(text, files["folder"], options[0]), keys_of(text, files["folder"], *options), strict=True)
    ):
        assert changed(before, after) == {"probe"}, cell
    longer = text.replace(
        'label = { target.content = "label" }', 'label = { target.content = "label", train.steps = 6 }'
    )
    _, before = keys_of(text, files["folder"], *options)
    _, after = keys_of(longer, files["folder"], *options)
    assert changed(before, after) == {"probe"}


def test_counterfactuals_are_asked_of_those_that_explain_before_the_label_alone(
    files: dict[str, str],
) -> None:
    """Their seed counts where it draws explanations, also for a model without any training."""
    text, asked = BASE.format(**files), 'evaluate.counterfactuals=["reference", "other"]'
    assert keys_of(text, files["folder"]) == keys_of(text, files["folder"], asked)
    first = 'target.placement="before"'
    (before,), (after,) = (keys_of(text, files["folder"], first, *more) for more in ((), (asked,)))
    assert changed(before, after) == {"evaluate"}
    untrained = (first, "train.steps=0", 'evaluate.counterfactuals=["{}"]')
    for kind, drawn in (("reference", False), ("contradicting", True)):
        overrides = [override.format(kind) for override in untrained]
        (one,), (two,) = (keys_of(text, files["folder"], *overrides, f"seeds=[{seed}]") for seed in (3, 4))
        assert ("evaluate" in changed(one, two)) is drawn


def test_samples_are_evaluated_with_their_seed_and_settings(files: dict[str, str]) -> None:
    text = BASE.format(**files)
    (before,) = keys_of(text, files["folder"])
    (same,) = keys_of(text, files["folder"], "evaluate.sampling.temperature=0.5")  # of no samples
    assert same == before
    seen = {before["evaluate"]}
    for setting in ("", "temperature=0.5", "top_p=0.9", "constrained=true"):
        override = [f"evaluate.sampling.{setting}"] if setting else []
        (after,) = keys_of(text, files["folder"], "evaluate.sampling.samples=4", *override)
        assert changed(before, after) == {"evaluate"}
        seen.add(after["evaluate"])
    assert len(seen) == 5
    options = ("train.steps=0", "evaluate.sampling.samples=2")
    (one,), (two,) = (keys_of(text, files["folder"], *options, f"seeds=[{seed}]") for seed in (3, 4))
    assert "evaluate" in changed(one, two)


LABELS_ALONE = ('target.content="label"',)
FILLER = ('target.content="label+filler"',)
WITHOUT_DIMENSION = ('prompt.template="{response}"',)
# Settings that nothing reads, and what makes it so.
NEEDLESS = [
    (("train.steps=5",), "train.epochs=2"),
    (("train.steps=null", "train.tokens=99"), "train.epochs=2"),
    (("train.steps=null", "train.label_tokens=99"), "train.epochs=2"),
    (("train.early_stopping=0",), "train.validate_every=7"),
    (("train.early_stopping=0",), "data.validation=3"),
    (LABELS_ALONE, "target.loss.explanation=0"),
    (LABELS_ALONE, 'target.separator=" -- "'),
    (LABELS_ALONE, 'target.placement="before"'),
    (LABELS_ALONE, "target.permuted=0.5"),
    (LABELS_ALONE, 'target.filler=" x"'),
    (FILLER, "target.permuted=0.5"),
    (("target.placement=before",), 'target.separator="\\nRating: "'),
    ((), 'target.separator=": "'),
    ((), 'target.filler=" x"'),
    (WITHOUT_DIMENSION, 'data.dimension="on-topic"'),
    ((*WITHOUT_DIMENSION, 'prompt.system="Be {{dimension}}."'), 'data.dimension="on-topic"'),
    (('data.source="coqa"',), 'data.columns.label="grade"'),
    (('data.source="graded-dialogues"',), 'data.columns.label="grade"'),
    (('data.source="graded-dialogues/people"',), 'data.columns={ response = "text", explanation = "why" }'),
    (('data.source=["coqa", "graded-dialogues"]',), 'data.columns.group="thread"'),
    ((*WITHOUT_DIMENSION, 'data.source="coqa"'), 'data.dimension="on-topic"'),
]


@pytest.mark.parametrize(("beside", "needless"), NEEDLESS)
def test_what_nothing_reads_changes_no_key(
    files: dict[str, str], beside: tuple[str, ...], needless: str
) -> None:
    text = BASE.format(**files)
    (before,) = keys_of(text, files["folder"], *beside)
    assert keys_of(text, files["folder"], *beside, needless) == [before]


@pytest.mark.parametrize("column", ['fields=["title"]', 'messages="chat"', 'further_explanations=["why"]'])
@pytest.mark.parametrize("source", ["graded-dialogues", "coqa"])
def test_columns_that_the_data_stage_refuses_are_no_part_of_what_is_done(
    files: dict[str, str], source: str, column: str
) -> None:
    text, of_source = BASE.format(**files), f'data.source="{source}"'
    (before,) = keys_of(text, files["folder"], of_source)
    (after,) = keys_of(text, files["folder"], of_source, f"data.columns.{column}")
    assert {"data", "train", "evaluate"} <= changed(before, after)


@pytest.mark.parametrize(
    ("study", "key"),
    [
        ("demo", "045574436f1cebd207ad8e2ebc586758"),
        ("small", "d1b98291c4aba74b1b3ac90fb9559371"),
        ("cross-domain-small", "4db72b7e2e40baecc880d909967d5598"),
    ],
)
def test_shipped_studies_keep_the_data_that_they_have_made(study: str, key: str) -> None:
    matrix = resolve(load_spec(Path(specs.__file__).parent / "studies" / f"{study}.toml"))
    assert Keys(matrix).of(matrix.cells[0])["data"] == key


@pytest.mark.parametrize(
    "reader",
    [
        'prompt.template="{response} is {dimension}"',
        'prompt.system="Rate the {dimension}."',
        'data.columns.label="{dimension}_label"',
        'data.columns.explanation="why_{dimension}"',
        'data.source="graded-dialogues"',
    ],
)
def test_a_dimension_that_something_reads_is_in_every_key(files: dict[str, str], reader: str) -> None:
    text, options = BASE.format(**files), (*WITHOUT_DIMENSION, reader)
    (before,) = keys_of(text, files["folder"], *options)
    (after,) = keys_of(text, files["folder"], *options, 'data.dimension="on-topic"')
    assert changed(before, after) == set(KEYS)


def test_a_dimension_that_the_test_prompt_alone_shows_trains_nothing_again(files: dict[str, str]) -> None:
    text = BASE.format(**files)
    options = (*WITHOUT_DIMENSION, 'evaluate.prompt.template="{response} {dimension}"')
    (before,) = keys_of(text, files["folder"], *options)
    (after,) = keys_of(text, files["folder"], *options, 'data.dimension="on-topic"')
    assert changed(before, after) == {"test_data", "base", "evaluate", "probe", "intervene"}


@pytest.mark.parametrize(
    ("labels", "marked"), [(["1", "2", "10"], True), (["Bad", "badly"], True), (["1", "2"], False)]
)
def test_trainings_with_labels_that_begin_others_have_keys_of_their_own(
    files: dict[str, str], labels: list[str], marked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows such a label counts as the label's since then; no other training is done again."""
    text, override = BASE.format(**files), f"evaluate.labels={json.dumps(labels)}"
    (now,) = keys_of(text, files["folder"], override)
    monkeypatch.setattr(Keys, "_labels_closed", lambda *_: "")
    (before,) = keys_of(text, files["folder"], override)
    assert {key for key in now if now[key] != before[key]} == (
        FOLLOWERS["train"] & {*now} if marked else set()
    )


def test_names_comments_order_defaults_and_executor_settings_change_nothing(files: dict[str, str]) -> None:
    (before,) = keys_of(BASE.format(**files), files["folder"])
    respelled = """
# a comment
target.content = "label+explanation"
train = { early_stopping = 1, batch_size = 8, steps = 5, checkpoint_every = 7, report_to = ["wandb"] }
store = "elsewhere"
name = "another"
seeds = [3]
data = { columns.label = "label", source = "rated.jsonl", holdout = 0.25 }
model = { dtype = "bfloat16", id = "model" }
evaluate = { batch_size = 3 }
probe = { backend = "torch", lens = "tuned" }
interventions = [{ kind = "mask", name = "off", cells = { seed = 3 }, width = [1] }]
"""
    (after,) = keys_of(respelled, files["folder"])
    assert after == before


AXES = {
    "lora.r": [16, 4],
    "train.lr": [2e-4, 1e-3],
    "data.seed": [0, 5],
    "evaluate.length_normalized": [False, True],
    "probe.top_k": [5, 1],
    "prompt.template": [None, "{response}"],
    "target.content": ["label+explanation", "label+shuffled", "label"],
}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(paths=st.lists(st.sampled_from(sorted(AXES)), unique=True), seeds=st.permutations([0, 3, 8]))
def test_a_cell_has_the_same_keys_whatever_else_the_spec_varies(
    files: dict[str, str], paths: list[str], seeds: list[int]
) -> None:
    """Extending a study by a factor or a seed keeps every result that stands."""
    (before,) = keys_of(BASE.format(**files), files["folder"])
    text = BASE.format(**files).replace("seeds = [3]", f"seeds = {seeds}")
    for number, path in enumerate(paths):
        levels = "".join(
            f"l{i} = {{}}\n" if value is None else f"l{i} = {{ {path} = {json.dumps(value)} }}\n"
            for i, value in enumerate(AXES[path])
        )
        text += f"[factors.f{number}.levels]\n{levels}"
    path = Path(files["folder"]) / "spec.toml"
    path.write_text(text)
    matrix = resolve(load_spec(path))
    same = [c for c in matrix.cells if all(i == 0 for i in c[:-1]) and matrix.seed(c) == 3]
    (cell,) = same
    keys = Keys(matrix)
    assert keys.of(cell) == before
    every = [tuple(sorted(keys.of(cell).items())) for cell in matrix.cells]
    assert len(set(every)) == len(every)  # no two different cells share all their results


def test_the_run_seed_reaches_training_and_the_shuffled_text_alone(files: dict[str, str]) -> None:
    text = BASE.format(**files)
    (before,) = keys_of(text, files["folder"])
    (after,) = keys_of(text, files["folder"], "seeds=[4]")
    assert changed(before, after) == FOLLOWERS["train"]
    untrained = ("train.steps=0", 'target.content="label"')
    assert keys_of(text, files["folder"], *untrained) == keys_of(
        text, files["folder"], *untrained, "seeds=[4]"
    )
    shuffled = ("train.steps=0", 'target.content="label+shuffled"')
    (before,), (after,) = (keys_of(text, files["folder"], *shuffled, f"seeds=[{s}]") for s in (3, 4))
    assert changed(before, after) == {"lens", "probe"}


def test_cells_that_differ_in_the_test_set_share_their_training(files: dict[str, str]) -> None:
    text = BASE.format(**files) + (
        '[factors.train_on]\npath = "data.dimension"\nvalues = ["a", "b"]\n'
        '[factors.test_on]\npath = "evaluate.data.dimension"\nvalues = ["a", "b", "c"]\n'
    )
    cells = keys_of(text, files["folder"])
    assert len(cells) == 6
    assert len({cell["train"] for cell in cells}) == 2
    assert len({cell["evaluate"] for cell in cells}) == len({cell["probe"] for cell in cells}) == 6
    # Testing on the training set itself is what a spec without the overlay does.
    (plain,) = keys_of(BASE.format(**files), files["folder"], 'data.dimension="a"')
    assert cells[0] == plain


def test_a_filter_changes_what_the_model_is_trained_on(files: dict[str, str]) -> None:
    (before,) = keys_of(BASE.format(**files), files["folder"])
    (after,) = keys_of(BASE.format(**files), files["folder"], "data.filter.language=English")
    assert changed(before, after) == set(KEYS)


def test_content_counts_and_not_its_place(files: dict[str, str], tmp_path: Path) -> None:
    (before,) = keys_of(BASE.format(**files), files["folder"])
    for name in ("model", "rated.jsonl"):
        source = Path(files["folder"]) / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    text = BASE.format(model="model", data="rated.jsonl")
    assert keys_of(text, tmp_path) == [before]
    (tmp_path / "model" / "README.md").write_text("words about the model")
    assert keys_of(text, tmp_path) == [before]
    (tmp_path / "model" / "config.json").write_text('{"hidden_size": 1}')
    (after,) = keys_of(text, tmp_path)
    assert changed(before, after) == FOLLOWERS["train"] | {"base"}
    (tmp_path / "rated.jsonl").write_text("{}\n{}\n")
    (last,) = keys_of(text, tmp_path)
    assert changed(after, last) == set(KEYS)


def test_hub_models_are_known_by_id_revision_and_file(files: dict[str, str]) -> None:
    text = BASE.format(model="someone/model", data=files["data"])
    (before,) = keys_of(text, files["folder"])
    for change in ('model.id="someone/other"', 'model.revision="abc"', 'model.gguf_file="m.gguf"'):
        (after,) = keys_of(text, files["folder"], change)
        assert changed(before, after) == FOLLOWERS["train"] | {"base"}


@pytest.mark.parametrize("key", ["template", "system", "chat_template"])
def test_a_test_prompt_is_read_by_what_is_tested_alone(files: dict[str, str], key: str) -> None:
    text, value = BASE.format(**files), toml(OTHER[f"prompt.{key}"])
    (before,) = keys_of(text, files["folder"])
    (after,) = keys_of(text, files["folder"], f"evaluate.prompt.{key}={value}")
    assert changed(before, after) == {"base", "evaluate", "probe", "intervene"}
    (trained,) = keys_of(text, files["folder"], f"prompt.{key}={value}")
    (same,) = keys_of(text, files["folder"], f"prompt.{key}={value}", f"evaluate.prompt.{key}={value}")
    assert trained == same  # laid over itself it is no other prompt


def test_a_factor_of_the_prompt_reaches_the_test_prompt_that_lies_over_it(files: dict[str, str]) -> None:
    factor = (
        '[factors.wording]\npath = "prompt.system"\nvalues = ["a", "b"]\n'
        '[factors.asked.levels]\nsame = {{}}\nshort = {{ evaluate.prompt.template = "{{response}}" }}\n'
    )
    cells = keys_of((BASE + factor).format(**files), files["folder"])
    assert [len({cell[name] for cell in cells}) for name in ("train", "evaluate", "probe")] == [2, 4, 4]
    (alone,) = keys_of(
        BASE.format(**files), files["folder"], 'prompt.system="b"', 'evaluate.prompt.template="{response}"'
    )
    assert alone == cells[3]


def test_a_probe_that_is_off_has_no_key(files: dict[str, str]) -> None:
    (before,) = keys_of(BASE.format(**files), files["folder"])
    (after,) = keys_of(BASE.format(**files), files["folder"], "probe.enabled=false")
    assert changed(before, after) == {"lens", "probe"} and not {"lens", "probe"} & set(after)


def test_both_spellings_of_the_activation_entropy_have_one_key(files: dict[str, str]) -> None:
    """And the usual one has the key that it always had."""
    (usual,) = keys_of(BASE.format(**files), files["folder"], "probe.activation=true")
    assert usual["probe"] == "af1b0ce5ddd9705607c26aae1efe1f59"
    known = '"logsumexp", "entropy", "max_prob", "kl_final", "js_final", "watch_mass", "watch_entropy"'
    for names in (f'{known}, "activation_entropy"', f'"activation_entropy", {known}'):
        (other,) = keys_of(BASE.format(**files), files["folder"], f"probe.statistics=[{names}]")
        assert other == usual


def test_a_tuned_lens_is_trained_once_per_trained_model(files: dict[str, str]) -> None:
    text, logit = BASE.format(**files), 'probe.lens="logit"'
    (before,), (after,) = (keys_of(text, files["folder"], *more) for more in ((logit,), ()))
    assert changed(before, after) == {"lens", "probe"} and "lens" not in before
    assert keys_of(text, files["folder"], logit, "probe.tuned.lr=0.5") == [before]  # nobody reads it
    assert after["lens"] == "590141ed4da59e0a578b43b2e7a534f9"
    (rounded,) = keys_of(text, files["folder"], 'probe.tuned.precision="bfloat16"')
    assert changed(after, rounded) == {"lens", "probe"}
    # Other test data, scoring or probing make no other lens; another seed's model does.
    for same in ('evaluate.data.dimension="b"', "evaluate.length_normalized=true", "probe.top_k=1"):
        (other,) = keys_of(text, files["folder"], same)
        assert other["lens"] == after["lens"]
    (seeded,) = keys_of(text, files["folder"], "seeds=[4]")
    assert seeded["lens"] != after["lens"]
    # An untrained model's training is the same on any data, its lens is not.
    untrained = [keys_of(text, files["folder"], "train.steps=0", f"data.train={n}")[0] for n in (5, 6)]
    assert changed(*untrained) == {"lens", "probe"}


def test_a_fingerprint_is_checked_and_is_no_part_of_the_key(files: dict[str, str]) -> None:
    text = BASE.format(**files)
    with pytest.raises(
        DataError, match=r'data.fingerprint: expected "0123", but ".*" has "([0-9a-f]{32})"'
    ) as error:
        keys_of(text, files["folder"], 'data.fingerprint="0123"')
    found = str(error.value).split('"')[-2]
    assert keys_of(text, files["folder"], f'data.fingerprint="{found}"') == keys_of(text, files["folder"])


def test_keys_of_specs_without_newer_settings_are_what_they_were(files: dict[str, str]) -> None:
    """As computed when all versions rose last; stores go by them until a stage's version rises again."""
    (keys,) = keys_of(BASE.format(**files), files["folder"], 'probe.lens="logit"')
    del keys["intervene"]
    assert keys == {
        "data": "51d48ff8c27eecf66a4465112771e22d",
        "test_data": "51d48ff8c27eecf66a4465112771e22d",
        "train": "b37a27f9b9dbb400d48fa145a296be7a",
        "evaluate": "6fb3da0b6dda83d3185c8e6b58a657c6",
        "probe": "84ffe8e42fed445572b0aa045d3a1e7d",
        "base": "ba7b3a7a261d1afa4d090750b9d41691",
    }


def test_older_interventions_keep_their_keys(files: dict[str, str]) -> None:
    """As computed before there were grids, other inputs, streams and paths."""
    more = """
[factors.rank]
path = "lora.r"
values = [16, 4]
[[interventions]]
name = "swap"
kind = "patch"
cells = { rank = 16 }
donor = { rank = 4 }
positions = ["prompt_end", -3]
layers = [2, 5]
[[interventions]]
name = "heads"
kind = "heads"
heads = [1, 0]
ablation = "mean"
"""
    found = keys_of(BASE.format(**files) + more, files["folder"], 'probe.lens="logit"')
    assert [keys["intervene"] for keys in found] == [
        "71855181058880159f324e56b616b44b", "5293f4636f855de2e95da83945a2f209",
    ]  # fmt: skip


def test_draws_of_other_examples_go_by_the_seed_and_a_donors_prompt_counts(files: dict[str, str]) -> None:
    text = (
        BASE.format(**files)
        + """
[factors.asked]
path = "evaluate.prompt.template"
values = ["{response}", "{context}"]
[[interventions]]
name = "drawn"
kind = "heads"
"""
    )
    for untrained in ("train.steps=0", "probe.top_k=1"):
        options = [untrained, "train.early_stopping=null", 'probe.lens="logit"']
        same = [keys_of(text, files["folder"], *options, f"seeds=[{seed}]") for seed in (1, 2)]
        drawn = text.replace('kind = "heads"', 'kind = "heads"\nablation = "resample"')
        other = [keys_of(drawn, files["folder"], *options, f"seeds=[{seed}]") for seed in (1, 2)]
        assert (same[0] == same[1]) == (untrained == "train.steps=0")
        assert other[0][0]["intervene"] != other[1][0]["intervene"]
    asked = text.replace(
        'kind = "heads"', 'kind = "patch"\ncells = { asked = "{response}" }\ninput = "donor"'
    )
    asked += 'donor = { asked = "{context}" }\n'
    (before, _), (after, _) = (
        keys_of(one, files["folder"]) for one in (asked, asked.replace("{context}", "{context}."))
    )
    assert changed(before, after) == {"intervene"}


def test_an_intervention_is_known_by_what_it_does_and_what_it_takes_from(files: dict[str, str]) -> None:
    text = (
        BASE.format(**files)
        + """
[factors.rank]
path = "lora.r"
values = [16, 4, 8]
[[interventions]]
name = "graft"
kind = "graft"
donor = { rank = 4 }
cells = { rank = [16, 4] }
"""
    )
    before = keys_of(text, files["folder"])
    more = keys_of(text.replace("values = [16, 4, 8]", "values = [16, 4, 8, 2]"), files["folder"])
    assert more[:3] == before
    assert keys_of(text.replace("cells = { rank = [16, 4] }", ""), files["folder"])[:2] == before[:2]
    for old, new in (
        ("rank = 4", "rank = 8"),
        ('name = "graft"', 'name = "g"'),
        ("donor = ", "stride = 2\ndonor = "),
    ):
        after = keys_of(text.replace(old, new, 1), files["folder"])
        assert changed(before[0], after[0]) == {"intervene"}, old
    other = keys_of(text, files["folder"], "train.lr=0.5")
    assert changed(before[0], other[0]) == FOLLOWERS["train"]


def test_what_a_cell_takes_from_itself_changes_nothing_and_is_left_out(files: dict[str, str]) -> None:
    text = (
        BASE.format(**files)
        + """
[factors.steps]
path = "train.steps"
values = [5, 0]
[[interventions]]
name = "graft"
kind = "graft"
donor = { steps = 5 }
"""
    )
    path = Path(files["folder"]) / "spec.toml"
    path.write_text(text)
    keys = Keys(matrix := resolve(load_spec(path)))
    trained, untrained = matrix.cells
    assert keys.sources(trained) == {"off": ""}  # grafting a cell's own adapter is no change
    assert keys.sources(untrained) == {"graft": keys.of(trained)["train"]}  # nor masking where there is none
