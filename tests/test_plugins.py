"""A package (`support/plugin`) adds to every kind of thing that a spec names; the engine stays as it is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import engine as command
from facts import facts, told

import engine
from engine.cli.power_tables import rows
from engine.planning.plan import make_plan
from engine.running.executors.in_process import InProcess
from specs import SpecError, load_spec, resolve
from specs.errors import PluginError
from specs.registry import EXECUTORS, METRICS, PUBLIC_SETS, REGISTRIES, STATISTICS, plugins
from store import open_store, read_manifests
from store.report.collect import collect

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "tests" / "support" / "plugin"
ENTRY_POINTS = PLUGIN / "ablation_example-1.0.dist-info" / "entry_points.txt"
SPEC = """
name = "plugged"
seeds = [0]
store = "{folder}/store"
model = {{ id = "{model}", dtype = "float32" }}
prompt = {{ chat_template = false, template = "{{context}} {{response}}:" }}
lora.r = 2
train = {{ steps = 1, batch_size = 4, precision = "float32" }}
[data]
source = "parity"
train = 8
test = 6
[evaluate]
labels = ["1", "2"]
metrics = ["off_by_one"]
[probe]
statistics = ["entropy", "hidden_norm"]
top_k = 0
[executor]
kind = "one_by_one"
[factors.target.levels]
label = {{}}
reversed = {{ target.content = "label+reversed" }}
"""
ASKED = """
[analysis]
primary = "hidden_norm"
smallest_difference_of_interest = { hidden_norm = 0.5 }
assumed.hidden_norm = { seed = 0.1, example = 0.2, rest = 0.3 }
[[contrasts]]
factor = "target"
baseline = "label"
"""
EVERYTHING = {"data", "test_data", "train", "evaluate", "base", "probe"}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Put a copy of the plug-in on the path, with texts of its files replaced; the last one counts."""

    def installed(**changed: tuple[str, str]) -> Path:
        folder = tmp_path / f"site{len(list(tmp_path.glob('site*')))}"
        shutil.copytree(PLUGIN, folder)
        for stem, (old, new) in changed.items():
            (file,) = (path for path in folder.rglob("*") if path.stem == stem)
            assert old in file.read_text()
            file.write_text(file.read_text().replace(old, new))
        monkeypatch.setattr(sys, "path", [str(folder), *(p for p in sys.path if Path(p).parent != tmp_path)])
        for name in [name for name in sys.modules if name.startswith("ablation_example")]:
            monkeypatch.delitem(sys.modules, name)
        for registry in REGISTRIES:
            registry._loaded.clear()
        return folder

    return installed


@pytest.fixture
def asked(spec: Path) -> Path:
    """The spec with a plug-in's statistic as its primary outcome."""
    spec.write_text(spec.read_text() + ASKED)
    return spec


@pytest.fixture
def spec(tmp_path: Path, tiny_model: Path) -> Path:
    file = tmp_path / "plugged.toml"
    file.write_text(SPEC.format(folder=tmp_path, model=tiny_model))
    return file


def test_a_study_of_plugins_runs_from_plan_to_report(install, asked: Path, tmp_path: Path) -> None:
    install()
    planned = engine.plan(asked)
    made = EXECUTORS.get("one_by_one", object).make
    assert made.__module__ == "ablation_example.running" and InProcess.__module__ not in made.__module__
    outcome = engine.execute(planned)
    assert not outcome.failed and {stage for _, stage, _ in outcome.ran} >= {"train", "evaluate", "probe"}

    node = open_store(tmp_path / "store")["plugged"]
    norm = node["probe"]["hidden_norm"]
    assert norm.dims == ("cell", "example", "layer", "position") and float(norm.min()) > 0
    assert norm.attrs["units"] == "1" and norm.attrs["long_name"] == "length of the residual stream"
    summary = node["summary"].to_dataset()
    assert summary["off_by_one"].values.tolist() == [1, 1] == summary["base_off_by_one"].values.tolist()

    assert read_manifests(tmp_path / "store")["plugged"]["plugins"] == [
        {"kind": kind, "name": name, "version": version, "package": "ablation-example 1.0"}
        for kind, name, version in (
            ("data_sets", "parity", "1"), ("executors", "one_by_one", ""), ("metrics", "off_by_one", "1"),
            ("pseudo_explanations", "reversed", "1"), ("statistics", "hidden_norm", "1"),
        )
    ]  # fmt: skip

    changed = node.ablation.contrasts()["target/hidden_norm"]
    assert changed["difference"].dims == ("level", "layer", "position")
    (experiment,) = collect(tmp_path / "store")["experiments"]
    drawn = {own["statistic"]: own["title"] for own in experiment["layers"]["curves"]}
    assert drawn["hidden_norm"] == "length of the residual stream" and "entropy" in drawn
    (contrast,) = experiment["contrasts"]["rows"]
    by_layer = contrast["layers"]["hidden_norm"]
    assert by_layer["title"] == drawn["hidden_norm"] and by_layer["layer"] == [0, 1, 2, 3]
    assert set(contrast["layers"]) == {"entropy", "hidden_norm"}
    expected = changed["difference"].isel(level=0).transpose("position", "layer")
    np.testing.assert_allclose(by_layer["difference"], expected, rtol=1e-3)
    (panel,) = experiment["panels"]
    assert panel["title"] == "Length of the residual stream" and panel["from"] == "ablation-example 1.0"
    assert [row[0] for row in panel["rows"]] == [0, 1, 2, 3]
    command("report", tmp_path / "store", "-o", tmp_path / "page.html")
    assert "Length of the residual stream" in (tmp_path / "page.html").read_text()


def test_a_pseudo_explanation_has_the_words_it_says(install, tokenizer) -> None:
    from small_study import writer

    from specs.tables.target import Target

    install()
    row = {"id": "1", "context": "a", "response": "b", "label": "1", "explanation": "the reply is good"}
    encoded = writer(tokenizer, target=Target(content="label+reversed")).encode(row)
    assert tokenizer.decode(encoded.completion[:-1]).endswith("good is reply the")


def test_a_plan_with_plugins_needs_no_torch(install, spec: Path) -> None:
    code = f"import engine, sys; engine.plan({str(spec)!r}); print('torch' in sys.modules)"
    path = os.pathsep.join([str(PLUGIN), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("changed", "stages"),
    [
        ({"targets": ('version="1"', 'version="2"')}, [set(), {"train", "evaluate", "probe"}]),
        ({"data": ('version="1"', 'version="2"')}, [EVERYTHING] * 2),
        ({"measures": ('norms, version="1"', 'norms, version="2"')}, [{"probe"}] * 2),
        (
            {"measures": ('"off_by_one",), version="1"', '"off_by_one",), version="2"')},
            [{"evaluate", "base"}] * 2,
        ),
        ({"METADATA": ("Version: 1.0", "Version: 1.1")}, [EVERYTHING] * 2),
        ({"running": ("one unit of work", "a unit of work")}, [set(), set()]),
    ],
)
def test_the_version_of_a_plugin_is_in_the_keys_of_what_it_makes(
    install, spec: Path, changed, stages
) -> None:
    def keys() -> list[dict[str, str]]:
        return [cell.keys for cell in make_plan(resolve(load_spec(spec))).cells]

    install()
    before = keys()
    install(**changed)
    pairs = zip(keys(), before, strict=True)
    assert [{stage for stage in cell if cell[stage] != old[stage]} for cell, old in pairs] == stages


def test_what_is_installed_has_no_say_in_other_keys(install, spec: Path) -> None:
    plain = ['data.source="graded-dialogues"', "evaluate.metrics=[]", 'probe.statistics=["entropy"]']
    plain += ['factors.target.levels.reversed={ target.content = "label+shuffled" }', 'executor.kind="local"']
    before = make_plan(resolve(load_spec(spec, plain))).cells
    install()
    assert make_plan(resolve(load_spec(spec, plain))).cells == before


def test_an_unknown_name_is_told_with_its_place_and_what_is_near(install, spec: Path) -> None:
    with pytest.raises(SpecError, match=r'plugged\.toml:\d+:\d+  probe\.statistics.*"hidden_norm"'):
        resolve(load_spec(spec))  # not installed
    install()
    with pytest.raises(SpecError, match=facts("target.content", '"label+reversed"')):
        resolve(load_spec(spec, ['target.content="label+reverse"']))
    with pytest.raises(PluginError, match=facts('"off"', "off_by_one")):
        METRICS.get("off", object)
    with pytest.raises(SpecError, match=facts("executor.kind", '"local", "ray", "slurm"', "plug-in")):
        engine.execute(spec, executor="cloud")


FAULTS = {
    "cannot be imported": (
        {"measures": ("import numpy as np", "import nowhere")},
        # The module holds a statistic, too, and either may be looked up first.
        r'plug-in "(off_by_one|hidden_norm)" of ablation-example 1\.0 '
        r"\(entry point ablation_engine\.(metrics|statistics): "
        r"ablation_example\.measures:(OFF_BY_ONE|HIDDEN_NORM)\) cannot be imported: ModuleNotFoundError",
    ),
    "has the wrong shape": (
        {"entry_points": (":HIDDEN_NORM", ":norms")},
        r'plug-in "hidden_norm" of ablation-example 1\.0 .*expected an object of the class Statistic '
        r"\(engine\.stages\.statistics\), found one of the class function",
    ),
    "has a name that is taken": (
        {"measures": ('names=("off_by_one",)', 'names=("accuracy",)')},
        r'evaluate\.metrics: the plug-in "off_by_one" of ablation-example 1\.0 .* gives "accuracy", which',
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_plugin_that_does_not_serve_is_named(install, spec: Path, fault: str) -> None:
    changed, said = FAULTS[fault]
    install(**changed)
    with pytest.raises(SpecError, match=said) as raised:
        engine.plan(spec)
    assert "\n" not in str(raised.value)


def test_two_packages_with_one_name_are_both_named(install) -> None:
    folder = install()
    other = folder / "other-2.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 2.0\n")
    shutil.copy(folder / "ablation_example-1.0.dist-info" / "entry_points.txt", other)
    with pytest.raises(PluginError, match=facts("several", "other 2.0")):
        STATISTICS.get("hidden_norm", object)


def test_a_group_that_is_misspelled_is_told(install) -> None:
    install(entry_points=("[ablation_engine.statistics]", "[ablation_engine.statistic]"))
    (ignored,) = (line for line in plugins() if line.startswith("hidden_norm"))
    assert told(ignored, "ablation-example 1.0", "IGNORED", "ablation_engine.statistic", "'statistics'")


def test_a_plugin_with_a_built_in_name_is_refused_where_a_spec_uses_it(install, spec: Path) -> None:
    install(entry_points=("hidden_norm =", "entropy ="))
    assert engine.plan(spec, ['probe.statistics=["max_prob"]']).cells
    said = (
        r'plugged\.toml:\d+:\d+  probe\.statistics: the plug-in "entropy" of ablation-example 1\.0 .* has '
        r"the name of the engine's own statistic of a layer; expected a plug-in with another name"
    )
    spec.write_text(spec.read_text().replace(', "hidden_norm"', ""))
    with pytest.raises(SpecError, match=said):
        engine.plan(spec)
    assert told(plugins(), "entropy", "statistics", "ablation-example 1.0", "REFUSED")


def test_a_plan_tells_the_power_in_a_plugins_statistic_that_the_spec_assumes(install, asked: Path) -> None:
    install()
    (row,) = [own for own in rows(engine.plan(asked)) if own["outcome"] == "hidden_norm"]
    assert 0 < row["power"] < 1
    output = command("power", asked, "--outcome", "hidden_norm").output
    assert told(output, "0.5")
    output = command("power", asked, "--outcome", "length", code=2).output
    assert told(output, "--outcome", "length", '"correct"')
    asked.write_text("\n".join(line for line in asked.read_text().splitlines() if "assumed" not in line))
    assert not rows(engine.plan(asked))
    output = command("power", asked, "--outcome", "hidden_norm", code=2).output
    assert told(output, "seed, example, rest", "[analysis.assumed.hidden_norm]")


def test_a_wrong_number_of_tokens_is_told(install, tokenizer) -> None:
    from small_study import writer

    from specs.tables.target import Target

    install(targets=("for token in word]", "for token in word[:1]]"))
    row = {"id": "1", "context": "a", "response": "b", "label": "1", "explanation": "zebras quaver"}
    with pytest.raises(PluginError, match=facts('"reversed"', "tokens", "genuine")):
        writer(tokenizer, target=Target(content="label+reversed")).encode(row)


def test_a_panel_that_fails_leaves_the_rest_of_the_report(install, small_store: Path) -> None:
    install(report=("        raise StoreError", "        raise KeyError"))
    (experiment,) = collect(small_store)["experiments"]
    (panel,) = experiment["panels"]
    assert "hidden_norm" in panel["missing"] and "ablation-example 1.0" in panel["missing"]
    assert "missing" not in experiment["results"]


def test_a_row_that_lacks_a_text_is_told(install) -> None:
    from engine.data.reading import read_source
    from specs.tables.data import Data

    install(data=('"label": str(2 - count % 2),', ""))
    with pytest.raises(PluginError, match=facts('"parity"', "ablation-example 1", '"label"')):
        read_source(Data(source="parity"))


def test_a_public_set_of_a_plugin_is_read_as_its_own_schema(install, tmp_path: Path) -> None:
    from engine.data.reading import read_source
    from engine.data.sources import sources
    from specs.tables.data import Data

    install()
    assert "quizzes" in PUBLIC_SETS and told(plugins(), "quizzes", "public_sets", "ablation-example 1.0")
    (source,) = sources(Data(source="quizzes"))
    assert source.hub == "somebody/quizzes" and source.revision == "0123456789abcdef0123456789abcdef01234567"
    copy = tmp_path / "copy.jsonl"
    copy.write_text('{"question": "who?", "answers": ["me", "you"]}\n')
    rows = read_source(Data(source=str(copy), adapter="quizzes"), labelled=False)
    assert [row["response"] for row in rows] == ["me", "you"]


def test_the_examples_of_the_page_run() -> None:
    page = (ROOT / "docs" / "extending.md").read_text("utf-8")
    made = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        assert len(block.splitlines()) <= 20
        names: dict[str, object] = {}
        exec(compile(block, "extending.md", "exec"), names)
        made |= {name: type(found).__name__ for name, found in names.items() if name.isupper()}
    assert set(made.values()) == {
        "PseudoExplanation", "DataSet", "PublicSet", "Statistic", "Metric", "ExecutorKind", "Panel",
    }  # fmt: skip
    assert made.keys() == {
        line.rpartition(":")[2] for line in ENTRY_POINTS.read_text().splitlines() if ":" in line
    }
