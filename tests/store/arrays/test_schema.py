"""Families: what they refuse, and what tells two of them apart."""

import pytest

from store import Coordinate, Family, StoreError, Variable


@pytest.mark.parametrize(
    ("coordinates", "variables", "message"),
    [
        ([], [Variable("a", ("x",), "bool")], "dimension 'x' has no coordinate"),
        ([Coordinate("x", "x", [])], [Variable("a", ("x",), "bool")], "no values"),
        (
            [Coordinate("x", "x", [1]), Coordinate("y", "x", [1, 2])],
            [Variable("a", ("x",), "bool")],
            "found 2",
        ),
        ([Coordinate("y", "z", [1])], [Variable("a", ("z",), "bool")], "no coordinate of its own"),
        ([Coordinate("x", "x", [1])], [Variable("x", ("x",), "bool")], "given 2 times"),
        ([Coordinate("x", "x", [1])], [Variable("cell", ("x",), "bool")], "store's own"),
        ([Coordinate("x", "x", [1])], [Variable("a/b", ("x",), "bool")], "must be a letter"),
        ([Coordinate("x", "x", [1])], [Variable("a", ("x",), "int64")], "found dtype 'int64'"),
        ([Coordinate("x", "x", [1])], [Variable("a", (), "bool")], "first dimension"),
        ([Coordinate("x", "x", [1])], [], "at least one variable"),
    ],
)
def test_a_family_says_what_is_wrong_with_it(coordinates, variables, message):
    with pytest.raises(StoreError, match=message):
        Family("probe", coordinates, variables)


def test_coordinates_refuse_mixed_values():
    with pytest.raises(StoreError, match="found int, str"):
        Coordinate("x", "x", [1, "a"])


@pytest.mark.parametrize("change", [{"units": "nat"}, {"dtype": "int32"}, {"name": "b"}, {"long_name": "x"}])
def test_a_family_is_known_by_everything_in_it(change):
    def family(values=(1, 2), **change):
        variable = {"name": "a", "dims": ["x", "y"], "dtype": "float32"} | change
        coordinates = [Coordinate("x", "x", values), Coordinate("y", "y", "abc")]
        return Family("probe", coordinates, [Variable(**variable)])

    keys = {family().key, family(**change).key, family(values=(1, 3)).key}
    assert len(keys) == 3 and {len(key) for key in keys} == {16}
    assert family() == family() and family().key == family().key
    assert family().label == "x2-y3" and family().sizes == {"x": 2, "y": 3}
