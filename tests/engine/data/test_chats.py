"""Chats as data: roles and texts, the last answer as the label, prompts message by message."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import engine
from drawn_tokenizers import byte_bpe
from facts import facts
from hypothesis import given
from hypothesis import strategies as st
from spec_problems import problems_of

import store
from engine.data.chats import chat_fields, messages_of
from engine.data.reading import read_source
from engine.errors import DataError, UsageError
from engine.planning.sizes import data_card
from engine.text.prompts import prompt_text
from specs.tables.data import Columns, Data
from specs.tables.target import Prompt

CHATS = [
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": f"Question {number % 5}?"},
        {"role": "assistant", "content": f"Guess {number}."},
        {"role": "user", "content": f"Sure? {{braces}} <{number}>"},
        {"role": "assistant", "content": "yes" if number % 2 else "no"},
    ]
    for number in range(40)
]
DATA = Columns(messages="messages")
LABELS = ["no", "yes"]


def shared_gpt(chat: list[dict[str, str]]) -> list[dict[str, str]]:
    names = {"user": "human", "assistant": "gpt"}
    return [{"from": names.get(each["role"], each["role"]), "value": each["content"]} for each in chat]


@pytest.fixture(params=["jsonl", "csv", "parquet", "shared"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    kind = request.param
    file = tmp_path / f"chats.{'jsonl' if kind == 'shared' else kind}"
    if kind == "csv":
        with file.open("w", newline="") as rows:
            table = csv.DictWriter(rows, ["messages"])
            table.writeheader()
            table.writerows({"messages": json.dumps(chat)} for chat in CHATS)
    elif kind == "parquet":
        pq.write_table(pa.table({"messages": CHATS}), file)
    else:
        spelled = CHATS if kind == "jsonl" else [shared_gpt(chat) for chat in CHATS]
        file.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in spelled))
    return str(file)


def test_the_last_answer_is_the_label_and_the_rest_the_prompt(source: str, tokenizer: Any) -> None:
    rows = read_source(Data(source=source, columns=DATA), labels=LABELS)
    assert [row["label"] for row in rows] == [chat[-1]["content"] for chat in CHATS]
    assert [messages_of(row) for row in rows] == [chat[:-1] for chat in CHATS]
    assert [row["response"] for row in rows] == [chat[-2]["content"] for chat in CHATS]
    assert {row["group"] for row in rows} == {f"Question {number}?" for number in range(5)}
    assert rows[3]["context"] == "System: Be brief.\nUser: Question 3?\nAssistant: Guess 3."
    prompt = Prompt(template="", messages=True)
    wanted = tokenizer.apply_chat_template(CHATS[7][:-1], tokenize=False, add_generation_prompt=True)
    assert prompt_text(prompt, tokenizer, rows[7], {}).text == wanted
    card = data_card(Data(source=source, columns=DATA))
    assert card is not None
    assert card.prompt == pytest.approx(sum(len(row["context"] + row["response"]) for row in rows) / 40)


def test_a_template_asks_behind_the_chat_and_an_instruction_replaces_its_own(tokenizer: Any) -> None:
    example = {"messages": json.dumps(CHATS[0][:3]), "context": "", "response": "", "label": "no"}
    prompt = Prompt(template="Rate the {dimension}.", system="Be {dimension}.", messages=True)
    text = prompt_text(prompt, tokenizer, example, {"dimension": "tone"})
    messages = [
        {"role": "system", "content": "Be tone."},
        *CHATS[0][1:3],
        {"role": "user", "content": "Rate the tone."},
    ]
    assert text.text == tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert [text.text[start:stop] for start, stop in text.data] == [each["content"] for each in messages]


STRICT = (  # users and assistants in turn, and no system message
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}"
    "{% endif %}{{ m.content }}\n{% endfor %}"
)
AS_TEXT = ("prompt.messages = false", "{context}")


@pytest.mark.parametrize(
    ("first", "last", "prompt", "said"),
    [
        (0, 2, {}, ("no system here", "expected prompt.messages = false", "{context}")),
        (1, 2, {"template": "Rate."}, ("roles must alternate", 'expected prompt.template = ""', *AS_TEXT)),
        (1, 2, {"system": "Be brief."}, ("no system here", "expected no prompt.system", *AS_TEXT)),
        (
            1,
            2,
            {"template": "Rate.", "system": "Be brief."},
            ("no system here", 'expected prompt.template = "" and no prompt.system', *AS_TEXT),
        ),
        (2, 3, {"template": "Rate."}, ("roles must alternate", "expected prompt.messages = false")),
    ],
)
def test_a_chat_that_the_template_refuses_is_named_with_advice_that_works(
    first: int, last: int, prompt: dict[str, str], said: tuple[str, ...]
) -> None:
    tokenizer = byte_bpe([])
    tokenizer.chat_template = STRICT
    chat = json.dumps(CHATS[0][first:last])
    example = {"id": "row-7", "messages": chat, "context": "", "response": "", "label": "no"}
    settings = Prompt(**{"template": "", "messages": True} | prompt)
    with pytest.raises(UsageError, match=facts("data.columns.messages", "row-7", *said)) as caught:
        prompt_text(settings, tokenizer, example, {})
    assert "chat_template = false" not in str(caught.value)
    assert ("prompt.system" in str(caught.value)) == ("system" in prompt)
    text = Prompt(template="{context}{response}", messages=False)
    assert prompt_text(text, tokenizer, example, {}).text


def test_a_label_of_its_own_leaves_the_last_answer_in_the_chat(tmp_path: Path) -> None:
    file = tmp_path / "rated.jsonl"
    rows = [{"messages": chat, "label": "yes", "story": f"s{n % 4}"} for n, chat in enumerate(CHATS)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = Columns(messages="messages", group="story")
    examples = read_source(Data(source=str(file), columns=columns), labels=LABELS)
    assert [messages_of(row) for row in examples] == CHATS
    assert {row["label"] for row in examples} == {"yes"} and {row["group"] for row in examples} == {
        f"s{n}" for n in range(4)
    }
    unrated = read_source(Data(source=str(file), columns=columns), labelled=False)
    assert [messages_of(row) for row in unrated] == CHATS


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
TURN = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": TEXT})


@given(st.lists(TURN, min_size=1, max_size=6))
def test_any_chat_comes_back_as_it_was(turns: list[dict[str, str]]) -> None:
    for chat in (turns, shared_gpt(turns), json.dumps(turns)):
        fields = chat_fields(chat, "row 1", "messages", answered=False)
        assert messages_of({name: text or "" for name, text in fields.items()}) == turns
        assert fields["response"] == turns[-1]["content"] and fields["group"] == turns[0]["content"]


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("no list", ("no JSON", '"role"')),
        ("[]", ("an empty list",)),
        (7, ("a number",)),
        ([7], ("message 1", "found 7", '"role"')),
        ([-1.5e30], ("message 1", "found -1.5e+30", '"role"')),
        (["seven"], ("message 1", 'found "seven"', '"role"')),
        ([["a"]], ("message 1", "found a list", '"role"')),
        ([[]], ("message 1", "found an empty list", '"role"')),
        ([True], ("message 1", "found true or false", '"role"')),
        ([{"role": 7, "content": "a"}], ("message 1", "found the role 7", "assistant")),
        ([{"role": "robot", "content": "a"}], ("message 1", '"robot"', "assistant")),
        ([{"content": "a"}], ("message 1", "null", "user")),
        ([{"role": "user"}], ("message 1", "no content")),
        (
            [{"role": "user", "content": " "}, {"role": "assistant", "content": "yes"}],
            ("message 1, is empty",),
        ),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}], ("message 2, is empty",)),
        ([{"role": "user", "content": [{"type": "image"}]}], ("no text",)),
        ([{"role": "user", "content": "a"}], ("ends with", "user", "data.columns.label")),
        ([{"role": "assistant", "content": "yes"}], ("no message of the user",)),
    ],
)
def test_what_is_no_chat_is_named(cell: Any, said: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "chats.jsonl"
    file.write_text(json.dumps({"messages": cell}) + "\n")
    with pytest.raises(DataError, match=facts("chats.jsonl", "row 1", '"messages"', *said)):
        read_source(Data(source=str(file), columns=DATA), labels=LABELS)


def test_an_answer_that_is_no_label_is_listed_with_its_column(tmp_path: Path) -> None:
    file = tmp_path / "chats.jsonl"
    file.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in CHATS))
    with pytest.raises(DataError, match=facts('"messages" holds "yes"', "no, maybe")):
        read_source(Data(source=str(file), columns=DATA), labels=["no", "maybe"])
    with pytest.raises(DataError, match=facts("data.columns.messages", "graded-dialogues")):
        read_source(Data(source="graded-dialogues", columns=DATA))


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        ('prompt = { messages = true, template = "" }', "prompt.messages", ("data.columns.messages",)),
        (
            'data.columns.messages = "m"\nprompt = { messages = true, template = "", chat_template = false }',
            "prompt.messages",
            ("chat_template",),
        ),
        (
            'data.columns.messages = "m"\nprompt = { messages = true, template = "{response}" }',
            "prompt.template",
            ("{response}", '""'),
        ),
        ('data.columns.fields = ["messages"]', "data.columns.fields[0]", ("messages",)),
    ],
)
def test_settings_that_do_not_fit_chats_are_refused(tmp_path: Path, text: str, key: str, said: Any) -> None:
    base = 'name = "demo"\nmodel.id = "m"\ndata.source = "s.jsonl"\n'
    (problem,) = problems_of(tmp_path, text + "\n", base)
    assert problem.key == key
    assert all(word in f"{problem.message} {problem.hint}" for word in said)


def test_a_study_of_chats_runs(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in CHATS))
    spec = tmp_path / "chats.toml"
    spec.write_text(
        f"""
name = "chats"
store = "chats.store"
model = {{ id = "{tiny_model}", dtype = "float32" }}
prompt.messages = true
prompt.template = ""
evaluate.labels = ["no", "yes"]
train = {{ steps = 1, batch_size = 2, precision = "float32" }}
[data]
source = "chats.jsonl"
columns.messages = "messages"
[factors.instruction.levels]
own = {{}}
strict = {{ prompt.system = "Be strict." }}
"""
    )
    engine("plan", spec)
    engine("execute", spec)
    node = store.open_store(tmp_path / "chats.store")["chats/evaluate"].to_dataset()
    assert node.sizes["cell"] == 2 and node["label_logprob"].notnull().all()
    assert "yes" in engine("data", spec).output
