"""Plans, outcomes and states show themselves in notebooks, and an execution says how far it is."""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
import tqdm.notebook

import engine
from engine.running.outcome_html import import_tqdm, in_notebook
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
        self.kernel: Any = None

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

    shell = handle.kernel = ZMQInteractiveShell()
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


def test_workers_show_what_they_are_at_in_a_notebook(write_spec, notebook: Handle) -> None:
    spec = write_spec(train="steps = 60")
    engine.execute(spec, only="target=label", workers=2)
    for cell in (1, 2):
        steps = rf"cell {cell}/4 target=label, seed={cell - 1}: train  \d+/60 loss \d"
        assert any(re.search(steps, update) for update in notebook.shown), cell
    assert any("waiting for workers to start" in update for update in notebook.shown)
    both = [update for update in notebook.shown if "cell 1/4" in update and "cell 2/4" in update]
    assert both and "at work" not in notebook.shown[-1]
    assert re.search(r"small +8/8 stages$", notebook.shown[-1].strip())


def test_a_failure_is_shown_where_the_cell_ran(write_spec, notebook: Handle) -> None:
    asked = write_spec(), ['evaluate.labels=["good", "bad"]']
    outcome = engine.execute(*asked, fail_fast=True)
    assert outcome.failed and "none of the labels" in text(outcome)
    assert "Nothing was left to run" not in text(outcome)
    assert "none of the labels" in notebook.shown[-1]
    error = outcome.failed[0][2]
    (told,) = [span for span in parsed(outcome).iter("span") if span.text == error]
    assert "\n" in error and "pre-wrap" in told.get("style", "")


def test_what_failed_before_is_told_again(write_spec, tmp_path: Path) -> None:
    asked = write_spec(), ['evaluate.labels=["good", "bad"]']
    engine.execute(*asked)
    again = engine.execute(*asked)
    assert again.left_failed == 1  # the data that all cells share
    assert "1 stage failed before; retry_failed=True" in text(again)
    assert "Nothing was left to run" not in text(again)
    states = engine.status(tmp_path / "store")
    ((cell, error),) = states.data_failures["small"]
    assert cell == "target=label, seed=0" and "none of the labels" in error
    assert "none of the labels" in text(states)


def test_a_notebook_without_widgets_gets_no_warning(
    notebook: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "tqdm.auto", raising=False)
    monkeypatch.delitem(sys.modules, "tqdm.autonotebook", raising=False)
    monkeypatch.setattr(tqdm.notebook, "IProgress", None)
    notebook.kernel.config = {"IPKernelApp": {}}  # by which tqdm knows a notebook
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        import_tqdm()
    assert "tqdm.auto" in sys.modules


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
