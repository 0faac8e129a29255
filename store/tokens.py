"""Token ids as words to look at."""

from collections.abc import Sequence

SIGNS = {"\n": "⏎", "\t": "⇥"}


def token_text(number: int, texts: Sequence[str] | None) -> str:
    """Return a token's text, with signs for outer blanks and all that cannot be seen; without texts its id.

    texts: by token id, as `read_vocabulary` returns them.
    """
    if texts is None or not 0 <= number < len(texts):
        return str(number)
    text = texts[number]
    inner = text.strip(" ")
    before = len(text) - len(text.lstrip(" "))
    after = len(text) - before - len(inner)
    return "␣" * before + "".join(map(_seen, inner)) + "␣" * after


def _seen(letter: str) -> str:
    if letter.isprintable():
        return letter
    return SIGNS.get(letter) or letter.encode("unicode_escape").decode()
