"""Whether the files of a model are what they say, by their headers alone: no length in them is believed."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

from engine.errors import EngineError

MOST_HEADER = 100_000_000  # bytes, as safetensors has it
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E5M2FNUZ", "F8_E4M3FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16), **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64), "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
_COUNTS = ("num_hidden_layers", "n_layer", "hidden_size", "n_embd", "vocab_size")
_GGUF_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # of values by their type
_GGUF_TEXT, _GGUF_LIST, _GGUF_DIMENSIONS = 8, 9, 4


class BadFileError(Exception):
    """A file is not what it says; the message has what was found and expected."""


def check_files(path: Path, *, whole: bool = True) -> None:
    """Raise EngineError naming the file of a model's folder, or GGUF file, that cannot be what it says.

    whole: every file that an index names has to be there; those of a hub's model may come later.
    """
    for file, check in _checks(path, whole=whole):
        try:
            check(file)
        except BadFileError as error:
            raise EngineError(f"model.id: {file}: {error}") from error
        except OSError as error:
            raise EngineError(
                f"model.id: {file}: {error.strerror or error}; expected a file to read"
            ) from error


def _checks(path: Path, *, whole: bool) -> Iterator[tuple[Path, Any]]:
    if path.suffix == ".gguf":
        yield path, _check_gguf
        return
    if not path.is_dir():
        return
    if (config := path / "config.json").exists():
        yield config, _check_config
    for index in sorted(path.glob("*.safetensors.index.json")):
        yield index, lambda file: _check_index(file, whole=whole)
    for file in sorted(path.glob("*.safetensors")):
        if file.exists() or whole:  # a link of the hub's cache may lead nowhere yet
            yield file, safetensors_shapes


def safetensors_shapes(file: Path) -> dict[str, list[int]]:
    """Give the shapes of the tensors of a file; an error where its header and size do not agree."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        _no_pointer(begin := stream.read(8))
        length = int.from_bytes(begin, "little")
        if size < 8 or not 2 <= length <= min(size - 8, MOST_HEADER):
            raise BadFileError(
                f"no safetensors file: its {size} bytes hold no header of {length}; expected a whole file"
            )
        header = _object(stream.read(length), "its header")
    shapes = {}
    for name, entry in header.items():
        if name != "__metadata__":
            shapes[name] = _shape(name, entry, size - 8 - length)
    return shapes


def _shape(name: str, entry: Any, held: int) -> list[int]:
    """Give a tensor's shape, its entry in the header checked against the bytes that the file holds."""
    fields = entry if isinstance(entry, dict) else {}
    kind, shape, place = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not (isinstance(kind, str) and kind in _BITS):
        raise BadFileError(f"tensor {name} has dtype {kind!r}; expected one of safetensors', such as F32")
    if not (_naturals(shape) and _naturals(place) and len(place) == 2):
        raise BadFileError(f"tensor {name} has no shape and data_offsets; expected two lists of numbers")
    begin, end = place
    if not begin <= end <= held:
        raise BadFileError(
            f"tensor {name} lies at bytes {begin} to {end}, but the file holds {held}; expected a whole file"
        )
    if math.prod(shape) * _BITS[kind] != 8 * (end - begin):
        raise BadFileError(
            f"tensor {name} of shape {shape} and type {kind} does not fill its {end - begin} bytes"
        )
    return list(shape)


def _no_pointer(begin: bytes) -> None:
    if begin == b"version ":
        raise BadFileError("a pointer of Git LFS in place of the file; expected the file: run `git lfs pull`")


def _naturals(sizes: Any) -> TypeGuard[list[int]]:
    return isinstance(sizes, list) and all(type(each) is int and each >= 0 for each in sizes)


def _object(content: bytes, what: str) -> dict[str, Any]:
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadFileError(f"{what} is no JSON; expected a JSON object") from error
    if not isinstance(parsed, dict):
        raise BadFileError(f"{what} is {type(parsed).__name__}; expected a JSON object")
    return parsed


def _read_object(file: Path) -> dict[str, Any]:
    if file.stat().st_size > MOST_HEADER:
        raise BadFileError(f"it has {file.stat().st_size} bytes; expected at most {MOST_HEADER}")
    return _object(file.read_bytes(), "it")


def _check_config(file: Path) -> None:
    config = _read_object(file)
    inner = config.get("text_config", config)
    if not isinstance(inner, dict):
        raise BadFileError(f"text_config is {type(inner).__name__}; expected a JSON object")
    for name in _COUNTS:
        if (value := inner.get(name)) is not None and not (type(value) is int and 0 <= value < 2**31):
            raise BadFileError(f"{name}: found {str(value)[:40]!r}; expected a number")
    layers = inner.get("num_hidden_layers") or inner.get("n_layer") or 0
    files = [each for each in file.parent.glob("*.safetensors") if each.exists()]
    if files and not [*file.parent.glob("*.index.json")]:
        tensors = sum(len(safetensors_shapes(each)) for each in files) if layers > 1000 else layers
        if layers > tensors:
            raise BadFileError(f"num_hidden_layers: found {layers}, but its files hold {tensors} tensors")


def _check_index(file: Path, *, whole: bool) -> None:
    places = _read_object(file).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
        raise BadFileError("it has no weight_map; expected the name of a file for every tensor")
    for name in sorted(set(places.values())):
        if Path(name).name != name or "\0" in name:
            raise BadFileError(f"it names the file {name!r}; expected one beside it")
        if whole and not (file.parent / name).is_file():
            raise BadFileError(f"it names {name}, which is missing; expected all files of the model")


def _check_gguf(file: Path) -> None:
    """Walk a GGUF file's header: every length against the bytes that are left."""
    with file.open("rb") as stream:
        _Gguf(stream, file.stat().st_size).check()


class _Gguf:
    """A reader of GGUF headers that never reads past what a file holds."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream, self._size, self._order = stream, size, "<"

    def check(self) -> None:
        """Raise where the header does not fit the file."""
        _no_pointer(self._stream.read(8))
        self._stream.seek(0)
        if self._stream.read(4) != b"GGUF":
            raise BadFileError("no GGUF file: it does not begin with GGUF; expected a whole file")
        version = self._number("I")
        if version & 0xFFFF == 0:  # written on a machine of the other byte order
            self._order, version = ">", struct.unpack(">I", struct.pack("<I", version))[0]
        if version not in (2, 3):
            raise BadFileError(f"found GGUF version {version}; expected 2 or 3")
        tensors, fields = self._number("Q"), self._number("Q")
        self._has(fields, 12, "fields")
        self._has(tensors, 24, "tensors")
        for _ in range(fields):
            self._text()
            self._value(self._number("I"))
        for _ in range(tensors):
            name = self._text()
            dimensions = self._number("I")
            if dimensions > _GGUF_DIMENSIONS:
                raise BadFileError(f"tensor {name!r} has {dimensions} dimensions; expected at most 4")
            elements = math.prod(self._number("Q") for _ in range(dimensions))
            _, offset = self._number("I"), self._number("Q")
            # The smallest types take a bit and a half for a weight.
            if elements > 8 * self._size or offset > self._size:
                raise BadFileError(
                    f"tensor {name!r} of {elements} weights at byte {offset} does not fit in a file of "
                    f"{self._size} bytes; expected a whole file"
                )

    def _value(self, kind: int) -> None:
        if kind in _GGUF_SIZES:
            self._skip(_GGUF_SIZES[kind])
        elif kind == _GGUF_TEXT:
            self._skip(self._number("Q"))
        elif kind == _GGUF_LIST:
            inner, count = self._number("I"), self._number("Q")
            if inner in _GGUF_SIZES:
                self._skip(count * _GGUF_SIZES[inner])
            elif inner == _GGUF_TEXT:
                self._has(count, 8, "texts")
                for _ in range(count):
                    self._skip(self._number("Q"))
            else:
                raise BadFileError(f"found a list of values of type {inner}; expected numbers or texts")
        else:
            raise BadFileError(f"found a value of type {kind}; expected one of GGUF's 13 types")

    def _has(self, count: int, each: int, what: str) -> None:
        if count * each > self._size:
            raise BadFileError(
                f"it claims {count} {what}, more than its {self._size} bytes can hold; expected a whole file"
            )

    def _skip(self, count: int) -> None:
        if self._stream.tell() + count > self._size:
            raise BadFileError(f"it ends within its header, at byte {self._size}; expected a whole file")
        self._stream.seek(count, 1)

    def _number(self, kind: str) -> int:
        content = self._stream.read(struct.calcsize(f"<{kind}"))
        if len(content) < struct.calcsize(f"<{kind}"):
            raise BadFileError(f"it ends within its header, at byte {self._size}; expected a whole file")
        return int(struct.unpack(self._order + kind, content)[0])

    def _text(self) -> str:
        length = self._number("Q")
        self._has(length, 1, "letters")
        return self._stream.read(length).decode(errors="replace")[:80]
