"""Plans, outcomes and states show themselves in notebooks, and an execution says how far it is."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

import engine
from engine.running.outcome_html import in_notebook
from store.ledger.levels import level_text


def parsed(shown: Any) -> ElementTree.Element:
    """What a notebook would show; it has to be well-formed."""
    return ElementTree.fromstring(shown._repr_html_())


def text(shown: Any) -> str:
    return " ".join(parsed(shown).itertext())


class Handle:
    """An output of a notebook: what it showed, one after another."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def update(self, shown: Any) -> None:
        self.shown.append(text(shown))


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Handle:
    """The kernel of a notebook, as far as it is asked."""
    handle = Handle()

    class ZMQInteractiveShell:
        pass

    def display(shown: Any, *, display_id: bool) -> Handle:
        handle.update(shown)
        return handle

    shell = ZMQInteractiveShell()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    return handle


def test_a_study_shows_itself_from_plan_to_states(write_spec, notebook: Handle, tmp_path: Path) -> None:
    spec = write_spec()
    planned = engine.plan(spec)
    shown = text(planned)
    assert "small : 4 cells" in shown.replace("\n", " ") and "label, label+explanation" in shown
    assert "4 pending" in shown
    cells = [span for span in parsed(planned).iter("span") if span.get("role") == "img" and span.get("title")]
    said = [span.get("title") for span in cells]
    assert sum("train pending" in str(title) for title in said) == 4

    outcome = engine.execute(planned, only={"target": "label"})
    assert in_notebook()
    assert any("target=label, seed=1: train" in update for update in notebook.shown)
    assert "train" in text(outcome) and "2" in text(outcome)

    states = engine.status(tmp_path / "store")
    assert isinstance(states, list) and len(states) == 4
    marks = [span.text for span in parsed(states).iter("span")]
    assert marks.count("✓") == 2 and marks.count("·") == 2
    assert [cell.state for cell in states] == ["done", "done", "pending", "pending"]


def test_a_failure_is_shown_where_the_cell_ran(write_spec, notebook: Handle) -> None:
    outcome = engine.execute(write_spec(), ['evaluate.labels=["good", "bad"]'], fail_fast=True)
    assert outcome.failed and "none of the labels" in text(outcome)
    assert "none of the labels" in notebook.shown[-1]


def test_elsewhere_nothing_is_shown(write_spec, capsys: pytest.CaptureFixture[str]) -> None:
    assert not in_notebook()
    engine.execute(write_spec(), max_cells=1)
    assert capsys.readouterr().out == ""


def test_text_of_a_spec_is_no_markup(write_spec) -> None:
    spec = write_spec()
    written = spec.read_text().replace(
        "[factors.target.levels]\nlabel =", '[factors.target.levels]\n"<b>&" ='
    )
    spec.write_text(written)
    assert level_text("<b>&") in text(engine.plan(spec))
    assert "<b>&" not in engine.plan(spec)._repr_html_()
