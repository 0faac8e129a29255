"""Files as tables: what is trained on is what stands in the file."""

from __future__ import annotations

import csv
import datetime
import decimal
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from facts import facts
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import ipc, parquet

from engine.data import json_rows
from engine.data.looking import look
from engine.data.prepare import SPLITS, load, prepare
from engine.data.reading import read_source
from engine.data.table_files import read_file
from engine.data.visible import visible
from engine.errors import DataError
from specs.tables.data import Columns, Data
from specs.toml.paths import DATA_FILES

COLUMNS = ("context", "response", "label", "explanation")
# Cells that readers like to take for something else than text.
CELLS = (
    "02139", "5.00", "true", "False", "NA", "None", "null", "nan", "NaN", "-", "1e3", "2024-05-01", " a ",
    "9223372036854775813", "+5", "0x10", "Infinity", "a,b",
    'say "hi"', "two\nlines", "two\r\nlines", "é\u2028",
    "'x'", "#",
)  # fmt: skip


def as_csv(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    stream = io.StringIO(newline="")
    table = csv.DictWriter(stream, rows[0], delimiter=delimiter)
    table.writeheader()
    table.writerows(rows)
    return stream.getvalue().encode()


def as_arrow(rows: list[dict[str, Any]], *, stream: bool = False) -> bytes:
    table, sink = pa.Table.from_pylist(rows), pa.BufferOutputStream()
    with (ipc.new_stream if stream else ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def as_parquet(rows: list[dict[str, Any]] | pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue())


WRITERS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    ".jsonl": lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode(),
    ".json": lambda rows: json.dumps(rows, indent=2).encode(),
    ".csv": as_csv,
    ".tsv": lambda rows: as_csv(rows, "\t"),
    ".parquet": as_parquet,
    ".arrow": as_arrow,
}


def texts(path: Path, content: str | bytes, **settings: Any) -> list[dict[str, str]]:
    """The rows of a file, without their ids and groups."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_texts(path, **settings)


def read_texts(path: Path, **settings: Any) -> list[dict[str, str]]:
    rows = read_source(Data(source=str(path), **settings))
    return [{name: row[name] for name in COLUMNS} for row in rows]


def row(**values: Any) -> dict[str, Any]:
    return {"context": "m", "response": "r", "label": "1", "explanation": "w"} | values


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("capital", [False, True])
@pytest.mark.parametrize("suffix", DATA_FILES)
def test_every_cell_of_every_format_is_the_text_that_was_written(
    tmp_path: Path, suffix: str, capital: bool, packed: bool
) -> None:
    rows = [row(response=f"{n}", context=cell, explanation=cell) for n, cell in enumerate(CELLS)]
    name = f"rated{suffix}{'.gz' * packed}"
    content = WRITERS[suffix](rows)
    file = tmp_path / (name.upper() if capital else name)
    assert texts(file, gzip.compress(content) if packed else content) == rows


def test_both_forms_of_an_arrow_file_are_read(tmp_path: Path) -> None:
    rows = [row(response=f"{n}") for n in range(5)]
    assert texts(tmp_path / "a.arrow", as_arrow(rows, stream=True)) == rows
    assert texts(tmp_path / "b.arrow", as_arrow(rows)) == rows


@given(cells=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=8))
def test_any_text_goes_through_csv_and_json(
    tmp_path_factory: pytest.TempPathFactory, cells: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    rows = [row(response=f"{n}", explanation=cell) for n, cell in enumerate(cells)]
    shown = [own | {"explanation": own["explanation"] if visible(own["explanation"]) else ""} for own in rows]
    for suffix in (".csv", ".tsv", ".json", ".jsonl"):
        assert texts(folder / f"rated{suffix}", WRITERS[suffix](rows)) == shown


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("5.00", "5.00"), ("1e3", "1e3"), ("9223372036854775813", "9223372036854775813"), ("-0", "-0"),
        ("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"), ("true", "true"),
        ("false", "false"), ('"2024-05-01"', "2024-05-01"), ('"02139"', "02139"), ('"None"', "None"),
        ("null", ""), ("NaN", ""), ('""', ""), ("4.0", "4.0"), ('"\\u00e9"', "é"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["[{}]", "{}\n"])
def test_a_value_of_json_is_its_own_text(tmp_path: Path, form: str, written: str, text: str) -> None:
    line = f'{{"context": "m", "response": "r", "label": "1", "explanation": {written}}}'
    (found,) = texts(tmp_path / "rated.json", form.replace("{}", line))
    assert found["explanation"] == text


def test_typed_values_become_text_as_documented(tmp_path: Path) -> None:
    noon = datetime.datetime(2024, 5, 1, 12, 30)
    table = pa.table({
        "whole": pa.array([5.0]), "half": pa.array([0.5]), "narrow": pa.array([0.1], pa.float32()),
        "narrower": pa.array(np.array([0.1], np.float16)), "nan": pa.array([float("nan")]),
        "large": pa.array([2**63 + 5], pa.uint64()), "money": pa.array([decimal.Decimal("5.00")]),
        "day": pa.array([noon.date()]), "noon": pa.array([noon], pa.timestamp("ns")),
        "time": pa.array([noon.time()]), "flag": pa.array([True]), "none": pa.array([None], pa.int64()),
        "class": pa.array(["a"]).dictionary_encode(),
        "context": pa.array(["m"]), "response": pa.array(["r"]), "label": pa.array(["1"]),
    })  # fmt: skip
    expected = {
        "whole": "5", "half": "0.5", "narrow": "0.1", "narrower": "0.1", "nan": "", "none": "",
        "large": "9223372036854775813", "money": "5.00", "day": "2024-05-01", "noon": "2024-05-01T12:30:00",
        "time": "12:30:00", "flag": "true", "class": "a",
    }  # fmt: skip
    (tmp_path / "typed.parquet").write_bytes(as_parquet(table))
    for column, text in expected.items():
        (found,) = read_texts(tmp_path / "typed.parquet", columns=Columns(explanation=column))
        assert (column, found["explanation"]) == (column, text)


@pytest.mark.parametrize(
    ("value", "kind"),
    [([["a"]], "a list"), ({"a": 1}, "an object"), (b"abc", "bytes"), ("\ud800", "one half")],
)
def test_what_is_no_single_value_is_refused_where_it_is_used(tmp_path: Path, value: Any, kind: str) -> None:
    rows = [row(response="0", label=1), row(response="1", label=2, explanation=value)]
    rows[0]["explanation"] = None
    in_parquet = isinstance(value, bytes)
    file = tmp_path / f"rated{'.parquet' if in_parquet else '.jsonl'}"
    with pytest.raises(DataError, match=f'{file.name}, row 2: column "explanation" holds .*{kind}'):
        texts(file, WRITERS[file.suffix](rows))
    with pytest.raises(DataError, match='row 2: column "explanation" holds'):
        read_texts(file, filter={"explanation": "x"}, columns=Columns(explanation="label"))
    assert len(read_texts(file, columns=Columns(explanation="label"))) == 2


def test_keys_that_begin_in_later_rows_are_read(tmp_path: Path) -> None:
    """Past 10 MB of JSON and ten thousand rows of CSV, where readers that guess types have guessed."""
    rows = [{"context": "m" * 500, "response": f"{n}", "label": "1"} for n in range(21_000)]
    rows.append(row(explanation="late"))
    found = texts(tmp_path / "rated.jsonl", WRITERS[".jsonl"](rows))
    assert [found[0]["explanation"], found[-1]["explanation"]] == ["", "late"] and len(found) == 21_001
    found = texts(tmp_path / "rated.csv", as_csv([{"explanation": ""} | each for each in rows]))
    assert [found[0]["explanation"], found[-1]["explanation"]] == ["", "late"] and len(found) == 21_001


def test_a_long_list_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(response=f"{n} {cell}") for n, cell in enumerate(CELLS * 3)] + [row(response="x" * 999)]
    for size in (1, 7, 64):
        monkeypatch.setattr(json_rows, "CHUNK", size)
        for indent in (None, 3):
            assert texts(tmp_path / "rated.json", json.dumps(rows, indent=indent, ensure_ascii=False)) == rows


def test_memory_does_not_grow_with_a_list(tmp_path: Path) -> None:
    import tracemalloc

    file = tmp_path / "rated.json"
    rows = [row(response=f"{n}", context="m" * 1000) for n in range(4_000)]
    file.write_text(json.dumps(rows))
    del rows
    tracemalloc.start()
    assert len(read_texts(file, rows=10)) == 10
    assert tracemalloc.get_traced_memory()[1] < file.stat().st_size / 3
    tracemalloc.stop()


HEADER = "context,response,label,explanation\n"
LINE = '{"context": "m", "response": "r", "label": "1"}'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "context,response,label,label\nm,r,1,2\n", r'"label".*once'),
        ("a.jsonl", LINE[:-1] + ', "label": "2"}', r'line 1.*"label".*once'),
        ("a.csv", HEADER.encode("utf-16"), r"UTF-16.*UTF-8"),
        ("a.csv", HEADER.encode("utf-16-le"), r"UTF-16.*UTF-8"),
        ("a.jsonl", LINE.encode("utf-32"), r"UTF-32.*UTF-8"),
        ("a.csv", HEADER.encode() + "m,café,1,w\n".encode("latin-1"), r"line 2.*0xe9"),
        ("a.jsonl", f"{LINE}\n\n{LINE[:-1]}\n", "line 3: not JSON"),
        ("a.jsonl", f"{LINE}{LINE}", r"line 1.*object"),
        ("a.jsonl", f"[{LINE}]", r"line 1: found a list.*\.json file"),
        ("a.jsonl", f"{LINE}\n[{LINE}]", r"line 2.*object.*columns"),
        ("a.json", f"[{LINE},\n\n {LINE}\n{LINE}]", r'line 4.*JSON.*"\{".*"," or "\]"'),
        ("a.json", f"[{LINE},\n{LINE}", r"line 2.*JSON.*end"),
        ("a.json", f"[{LINE},\n1]", "line 2: expected an object"),
        ("a.json", f"[{LINE}] x", r'"x".*list'),
        ("a.json", '{\n"context": "m"}', r"line 1.*JSON.*list"),
        ("a.json", "[" * 100_000, "line 1: nested too deeply"),
        ("a.csv", f"{HEADER}m,r,1,w,more\n", r"row 1 \(line 2\).*5 cells.*4"),
        ("a.csv", f'{HEADER}m,"r,1,w\nm,r,1,w\n', "lines 2 to 3: cannot be read"),
        ("a.csv", f'{HEADER}m,r,1,w\n\nm,"r,1,w\nm,"r",1,w\n', "lines 4 to 5: cannot be read"),
        ("a.csv", f'{HEADER}m,"r" x,1,w\n', "line 2: cannot be read"),
        ("a.csv", f'"{HEADER}m,r,1,w\n', "lines 1 to 2: cannot be read"),
        ("a.csv", "", r"a\.csv.*empty"),
        ("a.csv.gz", HEADER, "a.csv.gz: cannot be read"),
        ("a.parquet", "no parquet", "a.parquet: cannot be read"),
        ("a.arrow", "no arrow file", "a.arrow: cannot be read"),
        ("a.xlsx", "", r"\.jsonl, \.json, \.csv, \.tsv, \.parquet, \.arrow.*\.gz"),
        ("a.txt.gz", "", "expected a file that ends with"),
        ("a", "", "expected a file that ends with"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_as_it_is_is_named(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        texts(tmp_path / name, content)


@pytest.mark.parametrize("repeated", [as_parquet, lambda table: as_arrow_table(table)])
def test_columns_of_one_name_are_refused_in_typed_files(tmp_path: Path, repeated: Any) -> None:
    table = pa.table([pa.array(["m"])] * 2, names=["context", "context"])
    name = "a.parquet" if repeated is as_parquet else "a.arrow"
    with pytest.raises(DataError, match=facts('"context"', "once")):
        texts(tmp_path / name, repeated(table))


def as_arrow_table(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def test_marks_line_ends_and_empty_lines_are_no_text(tmp_path: Path) -> None:
    lines = ["", "context,response,label,explanation", "m,r,1,w", "", "m,s,2", "", "m,t,3,,,"]
    expected = [
        row(),
        row(response="s", label="2", explanation=""),
        row(response="t", label="3", explanation=""),
    ]
    for end in ("\n", "\r\n", "\r"):
        assert texts(tmp_path / "rated.csv", b"\xef\xbb\xbf" + end.join(lines).encode()) == expected
    line = json.dumps(row())
    for content in (f"\ufeff{line}\r\n\r\n", f"\ufeff\n{line}", f" {line} "):
        assert texts(tmp_path / "rated.jsonl", content) == [row()]
    assert texts(tmp_path / "rated.json", f"\ufeff\r\n [{line}]\r\n") == [row()]


@pytest.mark.parametrize(
    ("labels", "written", "found"),
    [
        (["4", "5"], ["4.0", "5.00", 4.0, 5], ["4", "5", "4", "5"]),
        (["4.0", "5.0"], ["4", "5.0", 4.0], ["4.0", "5.0", "4.0"]),
        (["5", "5.0"], ["5", "5.0", "5.00"], ["5", "5.0", None]),
        (["5", "6"], ["05", "5.5", "5e0", " 5"], [None] * 4),
        (["02139", "2139"], ["02139", "2139"], ["02139", "2139"]),
        (["true", "false"], [True, "True"], ["true", None]),
    ],
)
def test_a_label_may_differ_in_zeros_behind_its_point_alone(
    tmp_path: Path, labels: list[str], written: list[Any], found: list[str | None]
) -> None:
    file = tmp_path / "rated.jsonl"
    rows = [row(response=f"{n}", label=value) for n, value in enumerate(written)]
    file.write_bytes(WRITERS[".jsonl"](rows))
    read = read_source(Data(source=str(file), invalid="drop"), labels=labels)
    assert {each["response"]: each["label"] for each in read} == {
        f"{n}": label for n, label in enumerate(found) if label is not None
    }
    if None in found:
        with pytest.raises(DataError, match=facts('"label"', "expected")):
            read_source(Data(source=str(file)), labels=labels)


def test_filters_hold_text_against_text(tmp_path: Path) -> None:
    content = HEADER + "5.0,a,1,True\n5,b,1,true\n05,c,1,TRUE\n5.5,d,1,yes\n"

    def kept(**allowed: Any) -> str:
        return "".join(each["response"] for each in texts(tmp_path / "rated.csv", content, filter=allowed))

    assert kept(context=5) == kept(context="5") == "ab"
    assert kept(context="05") == "c" and kept(context="5.0") == "a" and kept(context=["5.5", "05"]) == "cd"
    assert kept(explanation=True) == "abc" and kept(explanation="true") == "b"


@pytest.mark.parametrize("names", [("train", "test"), ("data/train/a", "data/test/a")])
def test_a_folder_of_mixed_files_is_read_by_split(tmp_path: Path, names: tuple[str, str]) -> None:
    parts = {f"{name}-{suffix[1:]}{suffix}": suffix for name in names for suffix in DATA_FILES}
    for number, (name, suffix) in enumerate(parts.items()):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(WRITERS[suffix]([row(context=f"m{number}", response=f"r{number} 02139")]))
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "README.md").write_text("about the data")
    found = read_source(Data(source=str(tmp_path), test_split="test"))
    assert sorted(each["response"] for each in found) == sorted(f"r{n} 02139" for n in range(12))
    assert [each.get("split") for each in found] == [None] * 6 + ["test"] * 6
    assert [each["id"] for each in found[:2]] == ["row-1", "row-2"]
    with pytest.raises(DataError, match=facts('"dev"', '"train"', '"test"')):
        read_source(Data(source=str(tmp_path), train_split="dev"))


def test_a_folder_of_shards_is_one_table(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(LINE)
    (tmp_path / "b.csv").write_text(HEADER + "m,s,1,w\n")
    assert [each["explanation"] for each in read_texts(tmp_path)] == ["", "w"]
    with pytest.raises(DataError, match=facts('"why"', "context, response, label, explanation")):
        read_texts(tmp_path, columns=Columns(explanation="why"))
    (tmp_path / "b.csv").write_text(HEADER + "m,,1,w\n")
    with pytest.raises(DataError, match=facts("b.csv, row 1", '"response"', "empty")):
        read_texts(tmp_path)


def test_a_folder_goes_by_the_configurations_of_its_readme(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.csv").write_text(f"{HEADER}m,{name},1,w\n")
    configs = "".join(f"- config_name: {name}\n  data_files: {name}.csv\n" for name in ("one", "two"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    assert [each["response"] for each in read_texts(tmp_path, config="two")] == ["two"]
    with pytest.raises(DataError, match=facts("data.config", '"three"', "one, two")):
        read_texts(tmp_path, config="three")


def test_a_folder_without_data_files_says_what_serves(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(DataError, match=facts(".jsonl, .json")):
        read_texts(tmp_path)


def test_what_was_read_is_what_is_trained_on(tmp_path: Path) -> None:
    """Through the data stage and back: the text of the file, cell for cell."""
    cells = [cell for cell in CELLS if cell.strip()]
    rows = [row(context=f"{cell} {n}", response=cell, explanation=cell) for n, cell in enumerate(cells * 2)]
    (tmp_path / "rated.csv").write_bytes(as_csv(rows))
    prepare(Data(source=str(tmp_path / "rated.csv")), ["1", "2"], tmp_path / "data")
    found = [each for split in SPLITS for each in load(tmp_path / "data", split, None)]
    assert sorted((each["context"], each["response"], each["explanation"]) for each in found) == sorted(
        (each["context"], each["response"], each["explanation"]) for each in rows
    )


@pytest.mark.parametrize(
    ("name", "sign", "said"),
    [
        ("a.csv", ";", ("semicolons", "commas", "save it")),
        ("a.csv", "\t", ("tabs", "commas", "a.tsv")),
        ("a.csv", "|", ("bars", "commas")),
        ("a.tsv", ",", ("commas", "tabs", "a.csv")),
        ("a.tsv", ";", ("semicolons", "tabs")),
        ("a.csv.gz", "\t", ("tabs", "commas", "a.tsv.gz")),
    ],
)
def test_cells_that_are_parted_otherwise_are_told_at_once(
    tmp_path: Path, name: str, sign: str, said: tuple[str, ...]
) -> None:
    """Also where commas in the text make rows of several cells, and to whom names no columns."""
    file = tmp_path / name
    text = f"context{sign}response{sign}label\na, b{sign}b{sign}1\nc{sign}d\te,f{sign}2\n".encode()
    file.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    pattern = facts(f"{name}, line 1: found", *said)
    with pytest.raises(DataError, match=pattern):
        read_source(Data(source=str(file)), labels=["1", "2"])
    with pytest.raises(DataError, match=pattern):
        look(str(file), "naturalness")


@pytest.mark.parametrize(
    ("name", "good", "bad", "told"),
    [
        (
            "a.jsonl",
            LINE,
            (LINE[:-1], "[1]", f"{LINE} x"),
            ("line 2: not", "line 3: exp", "line 5: found more"),
        ),
        ("a.csv", "m,r,1,w", ("m,r,1,w,x", "m,r,1,w,,y", "a,b,c,d,e"), ("row 1 (line 2)", "row 2", "row 4")),
    ],
)
def test_all_rows_that_cannot_be_read_are_told_at_once(
    tmp_path: Path, name: str, good: str, bad: tuple[str, ...], told: tuple[str, ...]
) -> None:
    file = tmp_path / name
    first = LINE if name == "a.jsonl" else HEADER.rstrip()
    lines = [first, bad[0], bad[1], good, bad[2]]
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError) as error:
        list(read_file(file).rows)
    head, *listed = str(error.value).splitlines()
    assert head == f"{file}: 3 rows cannot be read"
    assert len(listed) == 3 and all(part in line for part, line in zip(told, listed, strict=True))
    file.write_text("\n".join([*lines, *[bad[2]] * 9]) + "\n")
    with pytest.raises(DataError, match="12 rows cannot be read") as error:
        list(read_file(file).rows)
    assert len(str(error.value).splitlines()) == 7 and str(error.value).endswith("… and 7 more")


def test_one_column_of_a_plain_name_is_a_table(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("only one: column\na\n")
    assert read_file(file).columns == ["only one: column"]
