"""Damaged files of a model: one sentence that names the file, at once, and no memory by what they claim."""

from __future__ import annotations

import json
import random
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import command
from facts import told
from gguf_files import gguf_of
from small_study import small_spec

from engine.errors import EngineError
from engine.models import loading as models
from engine.models.weight_files import check_files
from engine.planning.sizes import model_card
from specs.tables.experiment import Model

TRIES = 150


def headed(header: Any, body: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + body


def parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def entry(**changed: Any) -> Callable[[bytes], bytes]:
    """Change the entry of one tensor in a header."""

    def change(content: bytes) -> bytes:
        header, body = parts(content)
        name = next(name for name in header if name != "__metadata__")
        return headed({**header, name: {**header[name], **changed}}, body)

    return change


WRONG: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "0 bytes hold no header"),
    "length 2^62": (lambda c: (2**62).to_bytes(8, "little") + c[8:], "no header of 4611686018427387904"),
    "header cut": (lambda c: c[:1000], "no header of"),
    "body cut": (lambda c: c[:-1000], "but the file holds"),
    "a list": (lambda _: headed([1]), "its header is list"),
    "deep": (lambda _: headed(b"[" * 100_000), "its header is no JSON"),
    "dtype": (entry(dtype="X9"), "has dtype 'X9'"),
    "offsets": (entry(data_offsets=[0, 2**50]), "lies at bytes 0 to 1125899906842624"),
    "before": (entry(data_offsets=[-4, 4]), "expected two lists of numbers"),
    "shape": (entry(shape=[2**40, 2**40]), "does not fill"),
    "shape, not a list": (entry(shape="many"), "expected two lists of numbers"),
    "a pointer": (lambda _: b"version https://git-lfs", "git lfs pull"),
}


def refusal(tmp_path: Path, model: Path, data: Path) -> str:
    """Plan and execute with a model; give what both say, which is one sentence."""
    shutil.rmtree(tmp_path / "specs", ignore_errors=True)
    (tmp_path / "specs").mkdir()
    spec = small_spec(tmp_path / "specs", model, data)
    said = set()
    for words in (("plan", spec), ("execute", spec)):
        begun = time.monotonic()
        code, output = command(*words)
        assert code == 1 and output.count("\n") == 1 and output.startswith("error: model.id: "), output
        assert time.monotonic() - begun < 5
        said.add(output)
    (output,) = said
    return output


@pytest.mark.parametrize("case", WRONG)
def test_a_damaged_safetensors_file_is_named_before_anything_runs(
    tiny_model: Path, rated_file: Path, tmp_path: Path, case: str
) -> None:
    change, expected = WRONG[case]
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    file = folder / "model.safetensors"
    file.write_bytes(change(file.read_bytes()))
    output = refusal(tmp_path, folder, rated_file)
    assert str(file) in output and expected in output
    with pytest.raises(EngineError, match=r"model.id: .*safetensors"):
        models.load(Model(id=str(folder)))


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (
            {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}},
            "model-2.safetensors, which is miss",
        ),
        ({"weight_map": {"a": "../../etc/passwd"}}, "expected one beside it"),
        ({"weight_map": ["a"]}, "it has no weight_map"),
        ([1], "it is list"),
    ],
)
def test_an_index_that_leads_nowhere_is_named(
    tiny_model: Path, rated_file: Path, tmp_path: Path, index: Any, expected: str
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (file := folder / "model.safetensors.index.json").write_text(json.dumps(index))
    output = refusal(tmp_path, folder, rated_file)
    assert str(file) in output and expected in output
    if "model-2" in expected:
        check_files(folder, whole=False)  # of a hub's model, what is missing may come later


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"num_hidden_layers": "x"}', "num_hidden_layers … 'x'"),
        ('{"num_hidden_layers": 1000000000}', "its files hold 30 tensors"),
        ("[]", "it is list"),
        ("{", "it is no JSON"),
    ],
)
def test_a_configuration_that_cannot_be_is_named(
    tiny_model: Path, rated_file: Path, tmp_path: Path, text: str, expected: str
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "config.json").write_text(text)
    output = refusal(tmp_path, folder, rated_file)
    assert str(folder / "config.json") in output and told(output, expected)


@pytest.fixture(scope="module")
def gguf(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return gguf_of(tiny_model, tmp_path_factory.mktemp("gguf") / "model.gguf").read_bytes()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: b"GGML" + c[4:], "does not begin with GGUF"),
        (lambda c: c[:4] + struct.pack("<I", 9) + c[8:], "version 9"),
        (lambda c: c[:8] + struct.pack("<Q", 2**60) + c[16:], "it claims 1152921504606846976 tensors"),
        (lambda c: c[:16] + struct.pack("<Q", 2**60) + c[24:], "it claims 1152921504606846976 fields"),
        (lambda c: c[:3000], "it ends within its header"),
        (lambda c: c[:-150_000], "does not fit in a file of"),
        (lambda c: c[:24] + struct.pack("<Q", 2**62) + c[32:], "letters"),
    ],
)
def test_a_damaged_gguf_file_is_named_before_anything_runs(
    gguf: bytes, rated_file: Path, tmp_path: Path, change: Callable[[bytes], bytes], expected: str
) -> None:
    (file := tmp_path / "model.gguf").write_bytes(change(gguf))
    output = refusal(tmp_path, file, rated_file)
    assert str(file) in output and expected in output


@pytest.mark.parametrize("kind", ["safetensors", "gguf"])
def test_drawn_damage_of_a_header_is_a_sentence_or_none(
    tiny_model: Path, gguf: bytes, tmp_path: Path, kind: str
) -> None:
    """Whatever a drawn byte, cut or insertion makes of a header, no other error comes of it, and no wait."""
    draw = random.Random(7)
    whole = gguf if kind == "gguf" else (tiny_model / "model.safetensors").read_bytes()
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    file = tmp_path / "model.gguf" if kind == "gguf" else folder / "model.safetensors"
    header, refused = min(len(whole), 4000), 0
    for _ in range(TRIES):
        content, at = bytearray(whole), draw.randrange(header)
        match draw.randrange(3):
            case 0:
                content[at] = draw.randrange(256)
            case 1:
                del content[at : at + draw.randrange(1, 9)]
            case _:
                content[at:at] = draw.randbytes(draw.randrange(1, 9))
        file.write_bytes(content)
        begun = time.monotonic()
        try:
            model_card(Model(id=str(file if kind == "gguf" else folder)))
        except EngineError as error:
            refused += 1
            assert str(file) in str(error) and "\n" not in str(error)
        else:
            if kind == "safetensors":  # what passes loads, or lacks weights by name
                try:
                    models.load(Model(id=str(folder), dtype="float32"), lens=False)
                except EngineError as error:
                    assert "\n" not in str(error)
        assert time.monotonic() - begun < 5
    assert refused > TRIES / 3
