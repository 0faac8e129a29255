"""Whether a text shows anything: spaces, control and zero-width characters alone say nothing."""

from __future__ import annotations

import unicodedata

# Characters of other categories that Unicode lets be shown as nothing, or as a space (fillers, the blank
# Braille pattern, variation selectors and their like).
_HIDDEN = frozenset(
    map(
        chr,
        (
            *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0),
            *range(0x180B, 0x1810),
            *range(0xFE00, 0xFE10),
            *range(0xE0100, 0xE01F0),
        ),
    )
)


def visible(text: str) -> bool:
    """Tell whether a text has a character that can be seen."""
    return any(
        unicodedata.category(letter) not in ("Zs", "Zl", "Zp", "Cc", "Cf") and letter not in _HIDDEN
        for letter in text
    )
