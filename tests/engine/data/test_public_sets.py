"""Public data sets, each read from a copy in its own schema, by the code that reads the hub's."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import public_sets
import pytest
from facts import facts

from engine.data.prepare import SPLITS, load, prepare
from engine.data.public_sets import CONDITIONS, NEWS, PublicSet
from engine.data.reading import read_source
from engine.data.sources import sources
from engine.errors import DataError
from engine.planning.identities import source_identity
from specs.registry import PUBLIC_SETS
from specs.tables.data import Columns, Data

ROOT = Path(__file__).parents[3]
SETS = {name: PUBLIC_SETS.get(name, PublicSet) for name in PUBLIC_SETS.built_in}
UNRATED = [name for name in SETS if not SETS[name].labels]


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copies")
    public_sets.write(folder)
    return folder


def copy(copies: Path, name: str, **settings: object) -> Data:
    return Data(source=str(copies / name), adapter=name, **{"invalid": "drop", **settings})


FIRST = {
    "chatbot-arena": [
        ("row-1.1", "Name a bird.", "A wren.", "Name a bird."),
        ("row-1.2", "Name a bird.", "An owl, for one.", "Name a bird."),
        ("row-2.1", "User: Is tea hot?\nAssistant: It is.\nUser: And ice?", "No.", "Is tea hot?"),
    ],
    "hh-rlhf-chosen": [
        ("row-1.1", "Where is town 0?", "By the sea: see\n\nthe map.", "Where is town 0?"),
        ("row-2.1", "Human: Hi\nAssistant: Hello.\nHuman: Sing!", "La la.", "Hi"),
    ],
    "hh-rlhf-rejected": [
        ("row-1.1", "Where is town 0?", "No idea, 0.", "Where is town 0?"),
        ("row-2.1", "Human: Hi\nAssistant: Hello.\nHuman: Sing!", "No.", "Hi"),
    ],
    "amazon-qa": [("row-1.1", "Does it float?", "Ours did.", "Does it float?")],
    "coqa": [
        ("row-1.1", "Ann 0 has a red kite.\nQuestion: Who?", "Ann 0", "Ann 0 has a red kite."),
        (
            "row-1.2", "Ann 0 has a red kite.\nQuestion: Who?\nAnswer: Ann 0\nQuestion: What colour?", "red",
            "Ann 0 has a red kite.",
        ),
    ],
    "cornell-movie-dialogs": [
        ("row-1.1", "Stay.", "Why?", "L1"),
        ("row-1.2", "Stay.\nWhy?", "It rains.", "L1"),
    ],
    "ag-news": [("row-1.1", "", "Item 0 of the news", "Item 0 of the news")],
    "medical-abstracts": [("row-1.1", "", "We looked at case 0.", "We looked at case 0.")],
}  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_rows_become_examples(copies: Path, name: str) -> None:
    rows = read_source(copy(copies, name), labelled=False)
    found = [tuple(row[key] for key in ("id", "context", "response", "group")) for row in rows]
    assert found[: len(FIRST[name])] == FIRST[name]
    assert all(set(row) == {"id", "context", "response", "group"} for row in rows)
    assert len({row["id"] for row in rows}) == len(rows)


@pytest.mark.parametrize("name", SETS)
def test_streaming_and_a_single_file_give_the_same_rows(copies: Path, name: str) -> None:
    data = copy(copies, name, rows=7)
    expected = read_source(data, labelled=False)
    assert read_source(copy(copies, name, rows=7, streaming=True), labelled=False) == expected
    if name in public_sets.PARQUET:
        file = copies / name / public_sets.PARQUET[name][1]
        alone = Data(source=str(file), adapter=name, invalid="drop", rows=7)
        assert read_source(alone, labelled=False) == expected


@pytest.mark.parametrize(("name", "labels"), [("ag-news", NEWS), ("medical-abstracts", CONDITIONS)])
def test_classes_are_labels(copies: Path, tmp_path: Path, name: str, labels: tuple[str, ...]) -> None:
    record = prepare(copy(copies, name, invalid="error"), labels, tmp_path)
    assert record["labels"] == dict.fromkeys(sorted(labels), 40 // len(labels))
    with pytest.raises(DataError, match=r"40 with a label that is none of the labels\n(.*\n)+.*and 35 more"):
        prepare(copy(copies, name, invalid="error"), ["1", "2"], tmp_path)


@pytest.mark.parametrize("name", UNRATED)
def test_what_has_no_ratings_says_who_makes_them(copies: Path, name: str) -> None:
    for data in (copy(copies, name), Data(source=name)):
        with pytest.raises(DataError, match=facts(f'"{name}"', "ratings", "engine annotate")):
            read_source(data)


def test_chosen_and_rejected_answers_stand_on_one_side_and_are_sampled_together(copies: Path) -> None:
    chosen, rejected = (
        read_source(copy(copies, f"hh-rlhf-{side}", rows=9, test_split="test"), labelled=False)
        for side in ("chosen", "rejected")
    )
    assert [row["context"] for row in chosen] == [row["context"] for row in rejected]
    assert [row.get("split") for row in chosen] == [row.get("split") for row in rejected]
    assert {row.get("split") for row in chosen} == {None, "test"}


def test_a_story_never_parts(copies: Path, tmp_path: Path) -> None:
    """What `engine annotate` writes has the reader's group: here every answer is rated 5."""
    rows = read_source(copy(copies, "coqa"), labelled=False)
    file = tmp_path / "rated.jsonl"
    file.write_text("".join(json.dumps(row | {"label": "5"}) + "\n" for row in rows))
    prepare(Data(source=str(file), columns=Columns(group="group")), list("12345"), tmp_path / "data")
    sides = {split: Counter(row["group"] for row in load(tmp_path / "data", split, None)) for split in SPLITS}
    assert sum(len(side) for side in sides.values()) == 20
    assert all(count == 2 for side in sides.values() for count in side.values())


def test_every_name_has_an_adapter_with_a_commit_and_a_line_in_the_documentation() -> None:
    page = (ROOT / "docs" / "data.md").read_text("utf-8")
    for name, adapter in SETS.items():
        (line,) = (line for line in page.splitlines() if line.startswith(f"| `{name}`"))
        assert f"`{adapter.hub}`" in line and all(f"`{split}`" in line for split in adapter.splits)
    unpinned = {
        name for name, adapter in SETS.items() if not re.fullmatch("[0-9a-f]{40}", adapter.revision or "")
    }
    assert unpinned == {"cornell-movie-dialogs", "medical-abstracts"}


def test_a_name_stands_for_a_pinned_hub_data_set() -> None:
    (found,) = sources(Data(source="amazon-qa"))
    assert (found.hub, found.config) == ("sentence-transformers/amazon-qa", "pair")
    assert found.revision == SETS["amazon-qa"].revision
    (other,) = sources(Data(source="amazon-qa", revision="abc", config="more"))
    assert (other.revision, other.config) == ("abc", "more")
    (mirror,) = sources(Data(source="me/mirror", adapter="amazon-qa"))
    assert (mirror.hub, mirror.config, mirror.revision) == ("me/mirror", None, None)
    texts = [Data(source="amazon-qa"), Data(source="amazon-qa", revision="abc"), Data(source="coqa")]
    assert len({source_identity(data) for data in texts}) == 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Data(source="ag-news"), r"HF_HUB_OFFLINE.*data\.adapter"),
        (Data(source="ag-news", train_split="dev"), r'"ag-news".*train, test.*"dev"'),
        (Data(source="ag_news"), r'"ag_news".*"ag-news"'),
    ],
)
def test_what_is_out_of_reach_says_why(data: Data, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_source(data)


def test_another_schema_is_named(copies: Path) -> None:
    with pytest.raises(DataError, match=facts('"story"', "coqa", "query")):
        read_source(Data(source=str(copies / "amazon-qa"), adapter="coqa"), labelled=False)
