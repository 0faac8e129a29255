"""`[analysis]`: its keys, what they allow, and that no result hangs on them."""

from pathlib import Path

import pytest
from facts import told

from specs import SpecError, load_spec, resolve

SPEC = 'name = "demo"\nmodel.id = "m"\ndata.source = "s"\nseeds = [0, 1, 2]\n[analysis]\n'


def problems(folder: Path, table: str) -> list[str]:
    """Give what is wrong with a spec of this table, as key and message."""
    (folder / "spec.toml").write_text(SPEC + table)
    with pytest.raises(SpecError) as caught:
        resolve(load_spec(folder / "spec.toml"))
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('primary = "acuracy"', "6:1  analysis.primary: expected"),
        (
            "smallest_difference_of_interest = { correct = 0 }",
            "analysis … .correct … > 0",
        ),
        ("smallest_difference_of_interest = { entropi = 1.0 }", 'did you mean "entropy"?'),
        ('monitoring = "spending"', "analysis.looks … seeds"),
        ("looks = [2, 3]", 'monitoring = "spending" … "fixed"'),
        (
            'monitoring = "spending"\nlooks = [2, 5, 5]',
            "looks[2] … 5",
        ),
        ('monitoring = "spending"\nlooks = [2]', "analysis.looks[0] … 3 … `seeds`"),
        ('monitoring = "spending"\nlooks = [1, 3]', "analysis.looks[0]: expected an integer >= 2"),
    ],
)
def test_what_cannot_be_is_told_with_its_line(tmp_path: Path, table: str, said: str) -> None:
    found = problems(tmp_path, table)
    assert any(told(line, said) for line in found), found
