"""`engine plan` finds what cannot run from the files at hand, with file and line, before anything runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import engine


def line_of(spec: Path, text: str) -> int:
    return next(n for n, line in enumerate(spec.read_text().splitlines(), start=1) if text in line)


@pytest.mark.parametrize("command", ["plan", "execute"])
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("train = 8", "train = 80", "data.train: found 80, but that split holds"),
        ("test = 6", "test = 1_000_000", "data.test: found 1,000,000, but that split holds"),
        (
            "chat_template = false",
            "chat_template = true",
            "found true, but this model's tokenizer has no chat template",
        ),
    ],
)
def test_what_the_files_do_not_hold(write_spec, tiny_model, tmp_path, command, old, new, said) -> None:
    spec = write_spec()
    model = tmp_path / "model"
    model.mkdir()
    for file in tiny_model.iterdir():
        if file.name != "chat_template.jinja":
            (model / file.name).write_bytes(file.read_bytes())
    spec.write_text(spec.read_text().replace(old, new).replace(str(tiny_model), str(model)))
    output = engine(command, spec, code=2).output
    assert f"{spec}:{line_of(spec, new)}:" in output and said in output
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("more", "line", "said"),
    [
        ("[probe]\nlayers = [0, 4]\n", "layers = [", "probe.layers: found 4; expected -4 to 3"),
        (
            '[factors.depth.levels]\nall = {}\nlast = { probe.layers = [-9] }\n', "last = {",
            "probe.layers: found -9; expected -4 to 3",
        ),
        (
            '[[interventions]]\nname = "off"\nkind = "mask"\nlayers = [7]\n', "[[interventions]]",
            "interventions: off.layers: found 7; expected 1 to 3",
        ),
    ],
)  # fmt: skip
def test_layers_that_the_model_lacks(write_spec, more: str, line: str, said: str) -> None:
    spec = write_spec(more)
    output = engine("plan", spec, code=2).output
    assert f"{spec}:{line_of(spec, line)}:" in output and said in output


@pytest.mark.parametrize("name", ["./models/none", "model.gguf", "a/b/c", "/nowhere/llama", "~/none/at/all"])
def test_a_model_that_is_spelled_as_a_path_but_is_not_there(write_spec, tiny_model, name: str) -> None:
    spec = write_spec()
    spec.write_text(spec.read_text().replace(str(tiny_model), name))
    output = engine("plan", spec, code=2).output
    assert f"{spec}:{line_of(spec, name)}:" in output and "no such file or folder" in output


def test_a_hub_id_is_no_path(write_spec, tiny_model) -> None:
    spec = write_spec()
    spec.write_text(spec.read_text().replace(str(tiny_model), "some/model"))
    assert "No estimate" in engine("plan", spec).output


def test_the_most_that_a_split_holds_is_enough(write_spec, rated_file) -> None:
    spec = write_spec()
    spec.write_text(spec.read_text().replace("train = 8", "train = 100_000"))
    said = engine("plan", spec, code=2).output
    most = said.rpartition("expected at most ")[2].split()[0]
    assert int(most) < len(rated_file.read_text().splitlines())
    spec.write_text(spec.read_text().replace("train = 100_000", f"train = {most}"))
    engine("plan", spec)


def test_wrong_data_are_left_to_the_data_stage(write_spec, rated_file, tmp_path) -> None:
    rows = [json.loads(line) | {"rating": "9"} for line in rated_file.read_text().splitlines()]
    bad = tmp_path / "bad.jsonl"
    bad.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = write_spec()
    spec.write_text(spec.read_text().replace(str(rated_file), str(bad)))
    engine("plan", spec)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", b""),
        ("model.safetensors", LFS),
        ("model.safetensors", b"\x02\0\0\0\0\0\0\0[]"),
        ("config.json", b"[]"),
    ],
)
def test_a_damaged_model_is_no_crash_of_the_plan(write_spec, tiny_model, tmp_path, file, content) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (model / file).write_bytes(content)
    spec = write_spec()
    spec.write_text(spec.read_text().replace(str(tiny_model), str(model)))
    assert "No estimate" in engine("plan", spec).output
    assert "EngineError: model.id: cannot load" in engine("execute", spec, code=1).output


@pytest.mark.parametrize("content", [b"", b"GGUF", LFS, b"GGUF\x03\0\0\0" + 100 * b"\xff"])
def test_a_damaged_gguf_is_no_crash_of_the_plan(write_spec, tiny_model, tmp_path, content) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(content)
    spec = write_spec()
    spec.write_text(spec.read_text().replace(str(tiny_model), str(model)))
    assert "No estimate" in engine("plan", spec).output
