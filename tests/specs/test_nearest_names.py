"""What a message says of a name that there is not: the one that is like it, else what there is."""

from specs.common.spelling import LISTED, alike, hint


def test_a_name_like_one_that_there_is_has_it_as_the_nearest() -> None:
    for end in (alike, hint):
        assert end("targt", ["seed", "target"]) == "; the nearest is 'target'"
        assert end("anything", []) == ""


def test_a_name_like_none_has_no_nearest_but_what_there_is() -> None:
    assert alike("true", ["0", "1", "2"]) == ""
    assert hint("true", ["0", "1"]) == "; expected one of '0', '1'"
    many = [f"name{number}" for number in range(LISTED + 1)]
    assert hint("zzz", many).endswith(f"'name{LISTED - 1}', …")
