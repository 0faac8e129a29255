"""Text to token ids, piece by piece: no token crosses the border of two pieces, and data stays text."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve, field, frozen

from engine.errors import DataError
from engine.models.tokenizer import Tokenizer

Span = tuple[int, int]  # begin and end of some characters of a text

# Text that others are put behind to be tokenized as if they went on from something: a tokenizer may give the
# beginning of a text a space of its own.
ANCHORS = ("\n", ".", "a", "0", "")


@frozen
class Text:
    """A text, and the spans of it that are data: these never become control tokens."""

    text: str
    data: Sequence[Span] = ()

    @staticmethod
    def of_data(text: str) -> Text:
        """Give a text that is data as a whole."""
        return Text(text, [(0, len(text))])

    def __add__(self, other: Text) -> Text:
        size = len(self.text)
        moved = ((start + size, stop + size) for start, stop in other.data)
        return Text(self.text + other.text, [*self.data, *moved])

    def parted(self, at: int) -> tuple[Text, Text]:
        """Give the text before a place, and the text from there on."""
        before = [(start, min(stop, at)) for start, stop in self.data if start < at]
        behind = [(max(start, at) - at, stop - at) for start, stop in self.data if stop > at]
        return Text(self.text[:at], before), Text(self.text[at:], behind)

    def holds_data(self, start: int, stop: int) -> bool:
        """Tell whether some of these characters are data."""
        return any(start < end and begin < stop for begin, end in self.data)


@frozen
class Tokens:
    """Token ids, and where each ends in the text that they were made of."""

    ids: list[int]
    ends: list[int]

    def parted(self, first: int, at: int) -> Tokens:
        """Give the tokens from the `first` one on, their ends counted from a place of the text."""
        return Tokens(self.ids[first:], [end - at for end in self.ends[first:]])


@frozen
class Encoder:
    """Tokenizes texts of which some parts are data.

    Control tokens are those that the tokenizer marks as special, and added ones that its chat template
    writes. The token for what is unknown is one only where the text spells its name, and a letter that the
    tokenizer has no other token for is none.
    """

    tokenizer: Tokenizer
    control: frozenset[int] = field(init=False)

    @control.default
    def _control(self) -> frozenset[int]:
        tokenizer, template = self.tokenizer, str(self.tokenizer.chat_template or "")
        added = tokenizer.added_tokens_decoder.items()
        ids = {number for number, token in added if token.special or token.content in template}
        ids |= set(tokenizer.all_special_ids)
        if tokenizer.unk_token_id not in (tokenizer.bos_token_id, tokenizer.eos_token_id):
            ids.discard(tokenizer.unk_token_id)
        letters = {number for number, token in added if len(token.content) == 1}
        if letters & ids:
            ids -= letters & set(tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False).values())
        return frozenset(ids)

    def opening(self, text: Text) -> list[int]:
        """Give the ids of the tokens that the tokenizer puts before a text, that of the beginning say."""
        for text_part in (text.text, "a"):  # a text without any token does not tell what is put before it
            encoded = self.tokenizer(text_part, return_special_tokens_mask=True)
            if 0 in (put := list(encoded["special_tokens_mask"])):
                return list(encoded["input_ids"][: put.index(0)])
        return []

    def tokens(self, text: Text) -> Tokens:
        """Tokenize a text that stands at the beginning; nothing is put before or behind it.

        Where data would become a control token, the text is parted inside it. DataError where that cannot be.
        """
        return self._completed(text, *self._first(text))

    def behind(self, text: Text) -> tuple[Text, Tokens, int]:
        """Tokenize a text as it stands behind others, but merged with none of them.

        Give an anchor with the text, the tokens of both, and how many of them are the anchor's.
        """
        whole, first, rest, skipped = self._anchored(text)
        return whole, self._completed(whole, first, rest), skipped

    def _completed(self, text: Text, first: Tokens, rest: Text) -> Tokens:
        """Give all tokens of a text: the first ones, and those of the rest, parted as often as it takes."""
        ids, ends = list(first.ids), list(first.ends)
        while rest.text:
            place, size = len(text.text) - len(rest.text), len(rest.text)
            whole, first, rest, skipped = self._anchored(rest)
            second = first.parted(skipped, len(whole.text) - size - place)
            ids, ends = ids + second.ids, ends + second.ends
        return Tokens(ids, ends)

    def _anchored(self, text: Text) -> tuple[Text, Tokens, Text, int]:
        """Tokenize the first part of a text behind an anchor that it does not merge with.

        Give the anchor with the text, the tokens up to where the text is parted, the rest, and how many of
        the tokens are the anchor's.
        """
        for anchor in map(Text, ANCHORS):
            alone, _ = self._first(anchor)
            first, rest = self._first(anchor + text)
            if goes_on(alone.ids, first, len(anchor.text)) and (alone.ids or not anchor.text):
                break
        return anchor + text, first, rest, len(alone.ids)

    def _first(self, text: Text) -> tuple[Tokens, Text]:
        """Tokenize a text up to inside the first control token that data would become; give the rest, too."""
        encoded = self.tokenizer(text.text, add_special_tokens=False, return_offsets_mapping=True)
        ids, spans = list(encoded["input_ids"]), list(encoded["offset_mapping"])
        for token, (start, stop) in zip(ids, spans, strict=True):
            if text.holds_data(start, stop) and self._is_control(token, text.text[start:stop]):
                if stop - start < 2:
                    return self._spelled(text, start)
                before, rest = text.parted(start + 1)
                tokens, more = self._first(before)
                return tokens, more + rest
        return Tokens(ids, [stop for _, stop in spans]), Text("")

    def _is_control(self, token: int, text: str) -> bool:
        unknown = token == self.tokenizer.unk_token_id and text.strip() == self.tokenizer.unk_token
        return token in self.control or unknown

    def _spelled(self, text: Text, place: int) -> tuple[Tokens, Text]:
        """Tokenize a text up to and with a letter that is the whole name of a control token."""
        before, rest = text.parted(place)
        letter, rest = rest.parted(1)
        encoded = self.tokenizer(letter.text, add_special_tokens=False, split_special_tokens=True)
        ids = list(encoded["input_ids"])
        if self.control & set(ids):
            raise DataError(
                f"found {letter.text!r} in a text of the data, which {type(self.tokenizer).__name__} reads "
                f"as its control token {self.tokenizer.convert_ids_to_tokens(ids)}; expected text without it"
            )
        first, more = self._first(before)
        if more.text:
            return first, more + letter + rest
        return Tokens([*first.ids, *ids], [*first.ends, *[place + 1] * len(ids)]), rest


def goes_on(ids: Sequence[int], longer: Tokens, border: int) -> bool:
    """Tell whether the tokens of a longer text begin with these, none of them reaching over the border."""
    count = len(ids)
    return longer.ids[:count] == list(ids) and all(end <= border for end in longer.ends[:count])


@frozen
class Trail:
    """Pieces of text that follow one another, as tokens.

    A piece is tokenized together with what stands before it, so that its tokens are those of the whole text;
    where a token would reach over the border, or reach back, the piece is tokenized apart. So the tokens of a
    trail always begin with those of the trail that it goes on from.
    """

    encoder: Encoder
    closed: list[int]  # what the tokens of no further piece are tried together with
    text: Text = Text("")
    open: Tokens = Tokens([], [])
    skipped: int = 0  # tokens of an anchor, at the beginning of `open`

    @property
    def ids(self) -> list[int]:
        """Give the ids of all pieces."""
        return self.closed + self.open.ids[self.skipped :]

    def add(self, piece: Text) -> tuple[Trail, Tokens]:
        """Give the trail with one piece more, and that piece's tokens, their ends counted from its start."""
        if not piece.text:
            return self, Tokens([], [])
        border, count = len(self.text.text), len(self.open.ids)
        whole = self.text + piece
        joint = self.encoder.tokens(whole)
        if goes_on(self.open.ids, joint, border):
            return evolve(self, text=whole, open=joint), joint.parted(count, border)
        whole, joint, skipped = self.encoder.behind(piece)
        parts = joint.parted(skipped, len(whole.text) - len(piece.text))
        return Trail(self.encoder, self.ids, whole, joint, skipped), parts
