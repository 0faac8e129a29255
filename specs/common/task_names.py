"""How numbers of tasks are called: after their task, and what else tells them apart."""

import re


def number_name(prefix: str, *words: str) -> str:
    """Give the name of a number: the words, with `_` for what is no letter, digit or `_`."""
    return prefix + re.sub(r"\W+", "_", "_".join(words), flags=re.ASCII)
