"""Specs made to harm are refused with a clear error, before they cost time or memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from facts import told

from specs import SpecError, load_spec, resolve
from specs.toml.parse import MAX_BYTES

BASE = 'name = "x"\nmodel.id = "m"\ndata.source = "s"\n'
HUGE = "1" + "0" * 400


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#" * (MAX_BYTES + 1), "1,048,577 bytes; expected at most 1,048,576"),
        ("x = " + "[" * 100_000, "bad.toml … nested"),
        ("x = " + "{a=" * 5_000 + "1" + "}" * 5_000, "nested too deeply"),
        ("\n\n" + ".".join("a" * 100_000) + " = 1", "bad.toml:3 … 32 parts"),
        ("[" + " . ".join(['"a b"'] * 50_000) + "]", "32 parts"),
        ("x = { y." + "'z'." * 50_000 + "a = 1 }", "32 parts"),
        ("x = " + "9" * 5_000, "thousands of digits"),
        (f"{BASE}train.steps = {HUGE}", "train.steps … integer >= 0 … ±9223372036854775807"),
        (f"{BASE}train.lr = {HUGE}", "train.lr: expected a number > 0, found the integer 1000…"),
        (f"{BASE}seeds = [{HUGE}]", "seeds[0] … >= 0 and <= 4294967295"),
        (
            f'{BASE}[factors.r]\npath = "lora.r"\nvalues = [{HUGE}]',
            "factors.r.values[0] … >= 1",
        ),
        (
            f"{BASE}seeds = {list(range(3_000))}\n"
            f'factors.r = {{ path = "lora.r", values = {list(range(1, 2_000))} }}',
            "5,997,000 … 2,000,000",
        ),
    ],
    ids=[
        "file", "arrays", "tables", "key", "header", "inline", "digits", "int", "float", "seed", "level",
        "product",
    ],
)  # fmt: skip
def test_bombs_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(SpecError) as error:
        resolve(load_spec(file))
    assert told(str(error.value), message) and len(str(error.value)) < 5_000


def test_a_long_text_of_dots_is_no_dotted_key(tmp_path: Path) -> None:
    file = tmp_path / "good.toml"
    prose = "Rate it. Be strict. Be fair. " * 500
    file.write_text(f'{BASE}prompt.template = "{prose}... {"." * 500} {{context}} {{response}}"')
    assert load_spec(file).experiment.prompt.template.startswith(prose)


def test_a_file_is_read_once_however_many_ways_lead_to_it(tmp_path: Path) -> None:
    """Twenty levels of two parents each would be a million readings."""
    (tmp_path / "0.toml").write_text(BASE)
    for level in range(1, 21):
        (tmp_path / f"{level}.toml").write_text(f'extends = ["{level - 1}.toml", "{level - 1}.toml"]')
    assert len(load_spec(tmp_path / "20.toml").sources) == 21


def test_an_argument_is_bounded_like_a_file(tmp_path: Path) -> None:
    file = tmp_path / "good.toml"
    file.write_text(BASE)
    with pytest.raises(SpecError, match="nested too deeply"):
        load_spec(file, ["train.lr=" + "[" * 10_000])
