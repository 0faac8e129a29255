"""No factor may have a name that the store's own variables, coordinates and dimensions have."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import engine
from small_study import small_spec

import store
from specs import SpecError, load_spec, resolve
from specs.checks.reserved_names import NODES, RESERVED, is_reserved
from specs.common.names import GEOMETRY, GRAM, LENS_STATISTICS, SIMILARITIES

FACTORS = {"target", "seed"}
STATISTICS = [*LENS_STATISTICS, "renyi_2"]


def test_the_list_is_that_of_the_nodes(tmp_path: Path, tiny_model: Path, rated_file: Path) -> None:
    """Studies of one cell per condition that do, together, everything there is to do."""
    found: dict[str, set[str]] = {}
    steer = '{ name = "steer", kind = "steer", from_positions = ["prompt[0]"] }'
    for number, probe in enumerate(
        (
            'lens = ["tuned", "jacobian"], tuned = { steps = 2 }, jacobian = { skip = 0 }',
            f'against = ["base"], watch = "next", statistics = {STATISTICS}, at = [0, 1.0], '
            f'geometry = {[*GEOMETRY, *SIMILARITIES, GRAM]}, positions = ["prompt"], '
            'streams = ["attention", "mlp"], attribution = true, attribution_per_head = true, '
            "differences = true",
            "at = [1.0]",
        )
    ):
        (tmp_path / str(number)).mkdir()
        spec = small_spec(
            tmp_path / str(number), tiny_model, rated_file, train="steps = 2\nearly_stopping = 1"
        )
        text = spec.read_text().replace("seeds = [0, 1]", "seeds = [0]").replace(
            'name = "small"',
            'name = "small"\ninterventions = [{ name = "off", kind = "mask" }, '
            '{ name = "path", kind = "path", donor = "own", input = "other example", '
            'positions = ["prompt_end"], grid = true }, '
            f'{steer if "differences" in probe else ""}]\n'
            f"target = {{ placement = 'before' }}\n"
            f"probe = {{ heads = true, activation = true, examples = 2, {probe} }}",
        )  # fmt: skip
        everything = (
            'scoring = ["loglikelihood", "constrained_generation", "generation"]\nmax_new_tokens = 2\n'
        )
        everything += "sampling = { samples = 2 }\n"
        everything += 'counterfactuals = ["empty"]\n'
        spec.write_text(
            text.replace(
                "[evaluate]\n", f"[evaluate]\ntrain_examples = 2\nneutral_text = 'builtin'\n{everything}"
            )
        )
        engine("execute", spec)
        for name, node in store.open_store(tmp_path / str(number) / "store")["small"].children.items():
            for shape in node.subtree:
                names = {str(known) for known in (*shape.variables, *shape.dims)} - FACTORS
                found[name] = found.get(name, set()) | names
    # All that nodes of tasks have beside cells and documents:
    assert is_reserved("task_arc_easy_acc") and is_reserved("inspect_letters_mean")
    found |= {name: {"cell", "example"} for name in ("base_tasks", "base_inspect", "tasks", "inspect")}
    # Of models with experts:
    found["probe"] |= {
        "expert",
        "expert_probability",
        "router_entropy",
        "top_expert",
    }  # of models with experts
    assert "lens" in found["probe"]  # a dim of several lenses alone, where no factor may have the name
    assert found | {"probe": found["probe"] - {"lens"}} == NODES


@pytest.mark.parametrize(
    "name", ["accuracy", "entropy", "gold", "source", "entry", "level", "pair", "low", "task_x"]
)
def test_such_a_factor_is_refused_with_its_line(tmp_path: Path, name: str) -> None:
    spec = tmp_path / "x.toml"
    factor = f'[factors.{name}]\npath = "train.lr"\nvalues = [1.0]\n'
    spec.write_text(f'name = "x"\nmodel.id = "m"\ndata.source = "s"\n{factor}')
    with pytest.raises(SpecError) as caught:
        resolve(load_spec(spec))
    (problem,) = caught.value.problems
    assert (problem.key, problem.line) == (f"factors.{name}", 4) and "the store's own" in problem.message


def test_reserved_names_are_words_that_a_factor_could_have() -> None:
    assert {"cell", "seed", "statistic", "learning_rate", "train_examples", "prediction"} <= RESERVED
