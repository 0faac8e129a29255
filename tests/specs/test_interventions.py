"""`[[interventions]]`: the cells they are done to, their donors, and mistakes in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from facts import told
from spec_problems import BASE, problems_of

from specs import load_spec, resolve

HEAD = """[[interventions]]
name = "x"
"""


@pytest.mark.parametrize(
    ("body", "key", "message"),
    [
        ('kind = "patsch"', "kind", 'did you mean "patch"'),
        ('kind = "mask"\nalpha = 1', "alpha", "1"),
        ('kind = "mask"\nalpha = -1', "alpha", "expected a number >= 0"),
        ('kind = "graft"\nalpha = 0.5', "alpha", 'kind = "mask"'),
        (
            'kind = "mask"\ndonor = { target = "label" }',
            "donor",
            'kind = "patch", kind = "graft", kind = "path" or kind = "steer"',
        ),
        ('kind = "graft"\ndonor = {}', "donor", "found an empty table"),
        ('kind = "graft"\ndonor = { targt = "label" }', "donor.targt", 'did you mean "target"'),
        ('kind = "graft"\ndonor = { target = "labl" }', "donor.target", 'did you mean "label"'),
        ('kind = "graft"\ndonor = { rank = [8, 16] }', "donor.rank", "expected one level, found 2"),
        ('kind = "graft"\ndonor = "none"', "donor", "found the string"),
        ('kind = "mask"\ncells = { rank = 9 }', "cells.rank", "unknown level of `rank`"),
        ('kind = "mask"\nsweep = "below"\nwidth = [2]', "width", 'sweep = "window"'),
        ('kind = "mask"\nwidth = [2, 2]', "width[1]", "2 is listed twice"),
        ('kind = "mask"\nlayers = [3, 0]', "layers[1]", "0 is the embedding"),
        ('kind = "patch"\npositions = [2]', "positions[0]", "n < 0 … 2"),
        ('kind = "heads"\nmodules = ["mlp"]', "modules", 'kind = "mask"'),
        ('kind = "graft"\ninput = "other label"', "input", 'kind = "patch" or kind = "path"'),
        ('kind = "patch"\nsender = "mlp"', "sender", 'kind = "path"'),
        ('kind = "patch"\nablation = "mean"', "ablation", 'kind = "heads" or kind = "ablate"'),
        ('kind = "patch"\ngrid = true', "grid", 'expected a list of them, found "all"'),
        ('kind = "patch"\ndonor = "own"', "donor", 'another `input` than "same"'),
        ('kind = "patch"\ninput = "donor"', "input", 'a donor by its levels … found "base"'),
        ('kind = "path"\nheads = [1]', "heads", 'sender = "heads", found "attention"'),
        ('kind = "path"\nreceiver_layers = [4]', "receiver_layers", 'receiver = "mlp"'),
        ('kind = "path"\nreceiver = "mlp"\nreceiver_heads = "all"', "receiver_heads", 'receiver = "heads"'),
        ('kind = "path"\nreceiver = "mlp"\nreceiver_layers = [0]', "receiver_layers[0]", "the embedding"),
        ('kind = "patch"\npositions = ["prompt", "prompt"]', "positions[1]", "listed twice"),
        ('kind = "patch"\npositions = ["promt"]', "positions[0]", 'did you mean "prompt"'),
        ('kind = "patch"\npositions = [{ range = "label" }]', "positions[0].range", '"explanation"'),
        ('kind = "patch"\npositions = ["explanation"]', "positions", "no explanation before its label"),
    ],
)
def test_mistakes_name_their_place(tmp_path: Path, body: str, key: str, message: str) -> None:
    (problem,) = problems_of(tmp_path, f"{HEAD}{body}\n")
    assert problem.key == f"interventions[0].{key}"
    assert told(str(problem), message)


def test_names_must_differ(tmp_path: Path) -> None:
    named = "".join(f'[[interventions]]\nname = "{name}"\nkind = "mask"\n' for name in ("none", "source"))
    twice, *reserved = problems_of(tmp_path, 2 * f'{HEAD}kind = "mask"\n' + named)
    assert "the name of two interventions" in twice.message
    assert [problem.key for problem in reserved] == ["interventions[2].name", "interventions[3].name"]
    assert "the result of a model that others take from" in reserved[1].message


def test_a_donor_must_be_a_cell_of_the_same_model(tmp_path: Path) -> None:
    rules = '[rules]\nexclude = [{ target = "label", rank = 16 }]\n'
    (problem,) = problems_of(tmp_path, f'{rules}{HEAD}kind = "graft"\ndonor = {{ target = "label" }}\n')
    assert problem.key == "interventions[0].donor"
    assert told(problem.message, "target=label")
    models = '[factors.base]\npath = "model.id"\nvalues = ["m", "n"]\n'
    (problem,) = problems_of(tmp_path, f'{models}{HEAD}kind = "graft"\ndonor = {{ base = "m" }}\n')
    assert told(problem.message, "donor", "model")
    where = "cells = { rank = 8 }\n[rules]\nexclude = [{ rank = 8 }]\n"
    (problem,) = problems_of(tmp_path, f'{HEAD}kind = "mask"\n{where}')
    assert problem.key == "interventions[0].cells"


def test_another_level_of_the_factor_may_change_the_model(tmp_path: Path) -> None:
    path = tmp_path / "demo.toml"
    levels = "plain = {}\ndecay = { train.weight_decay = 0.1 }\neager = { model.attention = 'eager' }\n"
    body = 'kind = "graft"\ndonor = { variant = "plain" }\ncells = { variant = "decay" }\n'
    path.write_text(f"{BASE}[factors.variant.levels]\n{levels}{HEAD}{body}")
    matrix = resolve(load_spec(path))
    assert any(matrix.interventions(cell) for cell in matrix.cells)


def test_donors_follow_the_axes(tmp_path: Path) -> None:
    path = tmp_path / "demo.toml"
    path.write_text(
        f"""{BASE}
[factors.lr]
path = "train.lr"
values = [1e-3, 1e-4]
[rules]
zip = [["rank", "lr"]]
{HEAD}kind = "graft"
donor = {{ rank = 8 }}
cells = {{ target = "why" }}
"""
    )
    matrix = resolve(load_spec(path))
    donors = {cell: matrix.interventions(cell) for cell in matrix.cells}
    assert {cell: found[0][1] for cell, found in donors.items() if found} == {
        (1, 0, 0, 0): (1, 0, 0, 0),
        (1, 1, 1, 0): (1, 0, 0, 0),  # what is zipped with the rank moves with it
    }
