"""Annotating over real sockets: servers that misbehave, limits, keys, and what the output then says."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import httpx2
import public_sets
import pytest
from annotate_spec import attempt_of, lines, number_of, write_conversations, write_spec
from attrs import evolve
from chat_server import Reply, rated, serving
from commands import engine
from facts import told

from engine.annotation.endpoint import LARGEST, Endpoint, UnansweredError
from engine.annotation.reading import FAULTS, NO_EXPLANATION, NO_JSON, NOT_INTEGER, OUT_OF_SCALE, TRUNCATED
from specs.tables.annotate import Annotator

KEY = "sk-Secret.0123456789"


def logged(folder: Path) -> list[dict[str, Any]]:
    return lines(folder / "rated.jsonl.answers.jsonl")


def cells(output: str, name: str) -> list[str]:
    """The row of a table that begins with `name`."""
    row = next(line for line in output.splitlines() if line.startswith(f"│ {name} "))
    return [cell.strip() for cell in row.strip("│").split("│")]


# What a server does the first time that it is asked about each conversation; then it answers.
TROUBLE = [
    Reply(delay=0.8),
    Reply(status=429, headers={"Retry-After": "0.3"}),
    Reply(status=500),
    Reply(reset=True),
    Reply(raw=b'{"choices": [{"mess'),
    Reply(raw=b"{}", headers={"Content-Length": "1000", "Connection": "close"}),
    Reply(status=503, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    Reply(raw=b'{"choices": []}'),
]


def test_what_the_network_does_is_tried_again_and_never_an_answer(tmp_path: Path) -> None:
    def script(body: dict[str, Any], before: int) -> Reply:
        return rated(4) if before else TROUBLE[number_of(body)]

    with serving(script) as server:
        spec = write_spec(
            tmp_path, server.url, conversations=len(TROUBLE), annotator="timeout = 0.4\nconcurrency = 8"
        )
        output = engine("annotate", spec).output
    assert "8 of 8 conversations written" in output
    assert sorted(server.seen.values()) == [2] * len(TROUBLE)
    assert len(logged(tmp_path)) == len(TROUBLE)
    assert {line["naturalness"] for line in lines(tmp_path / "rated.jsonl")} == {4}
    limited = [time for time, body in zip(server.times, server.requests, strict=True) if number_of(body) == 1]
    assert limited[1] - limited[0] >= 0.3


# By conversation, what is answered in turn; the last one is repeated.
ANSWERS = [
    ['Surely!\n```json\n{"rating": 2, "explanation": "so"}\n```\nAnything else?'],
    ['{"rating": 3, "expl', '{"rating": 3, "explanation": "so"}'],
    ['{"rating": 7, "explanation": "so"}'],
    ['{"rating": 3.5, "explanation": "so"}', '{"rating": "4", "explanation": "so"}'],
    ['{"rating": 3, "explanation": " "}', "I cannot.", '{"rating": 5, "explanation": "é \ud83d"}'],
]


def test_malformed_answers_are_named_asked_again_and_in_the_end_missing(tmp_path: Path) -> None:
    def script(body: dict[str, Any], _before: int) -> Reply:
        turns = ANSWERS[number_of(body)]
        return Reply(turns[min(attempt_of(body), len(turns)) - 1])

    with serving(script) as server:
        spec = write_spec(tmp_path, server.url, conversations=5)
        output = engine("annotate", spec).output
        again = engine("annotate", spec).output
        assert len(server.requests) == len(logged(tmp_path)) == 1 + 2 + 3 + 3 + 3
    assert "3 of 5 conversations written" in output and "2 left out" in output
    assert [(row["id"], row["naturalness"]) for row in lines(tmp_path / "rated.jsonl")] == [
        ("row-1", 2), ("row-2", 3), ("row-5", 5),
    ]  # fmt: skip
    assert lines(tmp_path / "rated.jsonl")[2]["naturalness_explanation"] == "é ?"
    assert cells(output, "one / plain")[1:6] == ["5", "3", "2", "0", "9"]
    assert {fault: cells(output, fault)[1:] for fault in FAULTS if fault in output} == {
        TRUNCATED: ["1", "1"], NO_JSON: ["1", "1"], NO_EXPLANATION: ["1", "1"],
        OUT_OF_SCALE: ["3", "3"], NOT_INTEGER: ["3", "3"],
    }  # fmt: skip
    assert "requests answered" not in again
    followed = next(body for body in server.requests if number_of(body) == 1 and attempt_of(body) == 2)
    assert followed["messages"][1] == {"role": "assistant", "content": ANSWERS[1][0]}
    assert "it breaks off" in followed["messages"][2]["content"]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(status=401, error=f"no such key {KEY}"), "status 401: no such key ***"),
        (Reply(status=403), "status 403: as the script says"),
        (Reply(status=404, raw=b"<html>nothing here</html>"), "status 404: <html>nothing here</html>"),
        (Reply(status=400, error="unknown parameter"), "status 400: unknown parameter"),
        (Reply(status=302, headers={"Location": "http://localhost:1/"}), "status 302"),
        (Reply(status=429, headers={"Retry-After": "90000"}), "status 429, to be retried after 90000 s"),
        (Reply(status=500), "10 questions in a row got no answer; the last: status 500"),
    ],
)
def test_an_annotator_that_cannot_answer_stops_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: Reply, said: str
) -> None:
    monkeypatch.setenv("TEST_API_KEY", KEY)
    with serving(lambda body, _: reply if body["model"] == "broken" else rated(3)) as server:
        other = f'name = "two"\nendpoint = "{server.url}"\nmodel = "broken"\nkey_env = "TEST_API_KEY"\n'
        other += "backoff = 0.001\nretries = 1\nconcurrency = 1"
        spec = write_spec(
            tmp_path, server.url, conversations=12, more=f"[[annotate.annotators]]\n{other}", annotator=""
        )
        output = engine("annotate", spec, code=1).output
    assert told(output, "stopped", '"two"', f"{server.url}/chat/completions", "$TEST_API_KEY", said)
    assert not (tmp_path / "rated.jsonl").exists() and "Questions are left" in output
    assert {line["annotator"] for line in logged(tmp_path)} == {"one"} and len(logged(tmp_path)) == 12
    assert sum(body["model"] == "broken" for body in server.requests) <= 20
    assert KEY not in output


def test_a_request_that_is_refused_among_others_that_are_not_is_missing(tmp_path: Path) -> None:
    def script(body: dict[str, Any], _before: int) -> Reply:
        return Reply(status=400, error="too long") if number_of(body) == 2 else rated(3)

    with serving(script) as server:
        spec = write_spec(tmp_path, server.url, annotator="concurrency = 1")
        assert "3 of 4 conversations written" in engine("annotate", spec).output
        assert "the request was refused" in engine("annotate", spec).output
    assert len(server.requests) == 4
    (refused,) = [line for line in logged(tmp_path) if line["status"] == 400]
    assert refused["text"] == "too long" and refused["id"] == "row-3"


def test_the_key_is_sent_and_written_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_API_KEY", f" {KEY}\n")
    with serving(lambda *_: rated(3, f"your key is {KEY}")) as server:
        spec = write_spec(tmp_path, server.url, annotator='key_env = "TEST_API_KEY"')
        output = engine("annotate", spec).output
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    texts = [file.read_text("utf-8") for file in tmp_path.rglob("*") if file.is_file()]
    assert len(texts) == 4 and not any(KEY in text for text in (*texts, output))
    assert lines(tmp_path / "rated.jsonl")[0]["naturalness_explanation"] == "your key is ***"


def test_a_key_in_any_field_of_an_answer_is_taken_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_API_KEY", KEY)
    spelled = "".join(f"\\u{ord(letter):04x}" for letter in KEY)  # as JSON allows
    bodies = [
        json.dumps({"choices": [{"message": {"content": rated(3).text}, "finish_reason": KEY}], "id": KEY}),
        json.dumps({"choices": [{"message": {"content": ""}, "finish_reason": KEY}]}).replace(KEY, spelled),
        json.dumps({"error": {"message": KEY}}).replace(KEY, spelled),
    ]
    first = iter([Reply(raw=body.encode()) for body in bodies])
    with serving(lambda *_: next(first, rated(3))) as server:
        spec = write_spec(tmp_path, server.url, annotator='key_env = "TEST_API_KEY"')
        output = engine("annotate", spec).output
    assert next(first, None) is None
    texts = [file.read_text("utf-8") for file in tmp_path.rglob("*") if file.is_file()]
    assert server.requests and not any(KEY in text for text in (*texts, output))


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity"])
def test_an_answer_is_read_up_to_a_bound(encoding: str) -> None:
    """One that unpacks to 256 MB is none, and is never held whole."""
    packed = {"gzip": gzip.compress(bytes(2**28), 1), "deflate": zlib.compress(bytes(2**28), 1)}
    raw = packed.get(encoding, bytes(LARGEST + 1))
    reply = Reply(raw=raw, headers={"Content-Encoding": encoding})
    annotator = Annotator(name="a", model="m", endpoint="http://127.0.0.1/v1", retries=0)

    async def ask(url: str) -> str:
        async with httpx2.AsyncClient(timeout=None) as client:
            endpoint = Endpoint(evolve(annotator, endpoint=url), client, answered=True)
            with pytest.raises(UnansweredError) as caught:
                await endpoint.ask({"messages": [{"content": ""}]})
            return str(caught.value)

    with serving(lambda *_: reply) as server:
        tracemalloc.start()
        try:
            said = asyncio.run(ask(server.url))
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert said == "response too large or unreadable" and most < 2**26


def test_packed_answers_are_read(tmp_path: Path) -> None:
    body = json.dumps({"choices": [{"message": {"content": rated(4).text}, "finish_reason": "stop"}]})
    reply = Reply(raw=gzip.compress(body.encode()), headers={"Content-Encoding": "gzip"})
    with serving(lambda *_: reply) as server:
        engine("annotate", write_spec(tmp_path, server.url))
    assert lines(tmp_path / "rated.jsonl")[0]["naturalness"] == 4


@pytest.mark.parametrize(("value", "said"), [("", "is not set"), (f"{KEY}\nX-Other: 1", "characters … key")])
def test_a_missing_or_broken_key_is_named_by_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, said: str
) -> None:
    monkeypatch.setenv("TEST_API_KEY", value)
    with serving(lambda *_: rated(3)) as server:
        spec = write_spec(tmp_path, server.url, annotator='key_env = "TEST_API_KEY"')
        output = engine("annotate", spec, code=2).output
    assert "$TEST_API_KEY" in output and told(output, said) and KEY not in output
    assert not server.requests


def test_concurrency_and_rate_are_kept_to(tmp_path: Path) -> None:
    with serving(lambda *_: Reply(rated(3).text, delay=0.1)) as server:
        spec = write_spec(tmp_path, server.url, conversations=12, annotator="concurrency = 3")
        engine("annotate", spec)
    assert server.most_at_once == 3

    with serving(lambda *_: rated(3)) as server:
        limited = tmp_path / "limited"
        limited.mkdir()
        spec = write_spec(limited, server.url, conversations=6, annotator="requests_per_minute = 600")
        engine("annotate", spec)
    # The first one may arrive late, for its connection is made first.
    assert server.times[-1] - server.times[1] >= 0.95 * 4 * 60 / 600


def test_the_ensemble_of_the_study(tmp_path: Path) -> None:
    """Two annotators, four strategies, both scales: the arithmetic by hand, and an explanation by a model."""
    plain = ('name = "five"', 'name = "four"\nhigh = 4')
    shown = 'examples = [{{ context = "hi", response = "ho", rating = {0}, explanation = "fits" }}]'
    strategies = (
        *plain,
        *(f'name = "shown-{high}"\nhigh = {high}\n{shown.format(high)}' for high in (4, 5)),
    )

    def script(body: dict[str, Any], _before: int) -> Reply:
        text = body["messages"][0]["content"]
        if "Their explanations:" in text:
            assert text.count("- five\n") == text.count("- four\n") == 4 and "gave it 4 on" in text
            return Reply('{"explanation": "all in one"}')
        four = "from 1 (worst) to 4 (best)" in text
        return rated(3, "four") if four else rated(4, "five")

    with serving(script) as server:
        second = f'[[annotate.annotators]]\nname = "two"\nendpoint = "{server.url}"\nmodel = "other"\n'
        spec = write_spec(tmp_path, server.url, strategies=strategies, conversations=2, more=second,
                          table='merger = "two"')  # fmt: skip
        engine("annotate", spec)
    assert len(server.requests) == 2 * 8 + 2
    assert sum("Answer: {" in prompt for prompt in server.prompts()) == 8
    assert {body["model"] for body in server.requests if "Their" in body["messages"][0]["content"]} == {
        "other"
    }
    row = lines(tmp_path / "rated.jsonl")[0]
    assert row == {
        "id": "row-1", "context": "message 0", "response": "reply 0", "group": "message 0", "naturalness": 4,
        "naturalness_mean": 23 / 6,  # 3 of 1 to 4 is 11/3 of 1 to 5
            "naturalness_explanation": "all in one",
        "naturalness_answers": 8,
    }  # fmt: skip


def test_the_output_is_a_source_of_data(tmp_path: Path) -> None:
    with serving(lambda body, _: rated(1 + number_of(body) % 5)) as server:
        engine("annotate", write_spec(tmp_path, server.url, conversations=20))
    study = tmp_path / "study.toml"
    study.write_text(
        'name = "study"\nmodel.id = "m"\ndata.source = "rated.jsonl"\n'
        'data.columns = { label = "{dimension}", explanation = "{dimension}_explanation", group = "group" }\n'
    )
    from engine.data.reading import read_source
    from specs import load_spec, resolve

    matrix = resolve(load_spec(study))
    rows = list(read_source(matrix.table("data", matrix.cells[0])))
    assert [row["label"] for row in rows[:6]] == ["1", "2", "3", "4", "5", "1"]
    assert rows[0]["explanation"] == "because" and rows[0]["group"] == "message 0"


def test_a_plan_asks_nothing_and_counts_what_is_due(tmp_path: Path) -> None:
    with serving(lambda *_: rated(3)) as server:
        prices = "completion_price = 1e6\nmax_tokens = 7"
        spec = write_spec(tmp_path, server.url, annotator=prices, conversations=3)
        plan = engine("annotate", spec, "--plan").output
        assert not server.requests and not (tmp_path / "rated.jsonl.answers.jsonl").exists()
        due = cells(plan, "one")
        assert due[1:4] == ["3", "0", "3"] and due[5:] == ["21", "21.00"]
        engine("annotate", spec)
        write_conversations(tmp_path, 4)
        due = cells(engine("annotate", spec, "--dry-run").output, "one")
        assert due[1:4] == ["4", "3", "1"] and due[5] == "10"  # the server's answers have 10 tokens
        engine("annotate", spec)
        report = engine("annotate", spec, "--report").output
    assert len(server.requests) == 4 and "Krippendorff" in report
    assert json.loads((tmp_path / "rated.jsonl").read_text().splitlines()[3])["id"] == "row-4"


def test_factors_over_the_source_each_have_their_file(tmp_path: Path) -> None:
    with serving(lambda *_: rated(3)) as server:
        factor = (
            '[factors.set.levels]\na = { data.source = "asked.jsonl" }\nb = { data.source = "b.jsonl" }\n'
        )
        spec = write_spec(tmp_path, server.url, more=factor)
        (tmp_path / "b.jsonl").write_text('{"context": "c", "response": "r"}\n')
        output = engine("annotate", spec, code=2).output
        assert told(output, "several sources")
        spec.write_text(spec.read_text().replace('"rated.jsonl"', '"rated/{set}.jsonl"'))
        engine("annotate", spec)
    assert [len(lines(tmp_path / "rated" / f"{name}.jsonl")) for name in "ab"] == [4, 1]


def test_mistakes_outside_the_spec_are_named(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "http://127.0.0.1:9")
    spec.write_text(spec.read_text().replace('output = "rated.jsonl"', 'output = "asked.jsonl"'))
    assert told(engine("annotate", spec, code=2).output, "source")
    spec.write_text(spec.read_text().replace('output = "asked.jsonl"', 'output = "{place}.jsonl"'))
    assert told(engine("annotate", spec, code=2).output, "'place'", "seed")
    spec.write_text('name = "x"\nmodel.id = "m"\ndata.source = "asked.jsonl"\n')
    assert "no table [annotate]" in engine("annotate", spec, code=2).output
    assert told(engine("annotate", spec, "--plan", "--report", code=2).output, "one")


def test_a_public_set_without_ratings_is_annotated(tmp_path: Path) -> None:
    public_sets.write(tmp_path / "sets")
    with serving(lambda *_: rated(3)) as server:
        spec = write_spec(tmp_path, server.url)
        change = f'data = {{ source = "{tmp_path / "sets" / "coqa"}", adapter = "coqa", rows = 2 }}'
        spec.write_text(spec.read_text().replace('data.source = "asked.jsonl"', change))
        engine("annotate", spec)
    rows = lines(tmp_path / "rated.jsonl")
    assert len(rows) == len(server.requests) == 2
    assert all("Question: " in row["context"] and row["naturalness"] == 3 for row in rows)
