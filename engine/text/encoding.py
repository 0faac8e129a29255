"""Text to token ids, piece by piece: no token crosses the border of two pieces, and data stays text."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import cached_property, lru_cache
from hashlib import blake2b

from attrs import define, evolve, field, frozen

from engine.errors import DataError
from engine.models.tokenizer import Tokenizer
from engine.text.cuts import Cuts

Span = tuple[int, int]  # begin and end of some characters of a text

# Text that others are put behind to be tokenized as if they went on from something: a tokenizer may give the
# beginning of a text a space of its own.
ANCHORS = ("\n", ".", "a", "0", "")
SHORT = 200  # characters that are tokenized together without a thought
KEPT_BYTES = 200_000_000  # of prompts
KEPT_TEXTS = 20_000  # short ones


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
    cuts: Cuts = field(init=False, repr=False)
    _unknown: tuple[int | None, str | None] = field(init=False, repr=False)
    _suspects: frozenset[int | None] = field(init=False, repr=False)  # control tokens, if they are data's
    _opening: list[list[int]] = field(init=False, factory=list, repr=False)
    _prompts: Prompts = field(init=False, factory=lambda: Prompts(), repr=False)
    _short: dict[str, tuple[list[int], list[Span]]] = field(init=False, factory=dict, repr=False)

    @staticmethod
    def of(tokenizer: Tokenizer) -> Encoder:
        """Give the encoder of a tokenizer, which keeps the prompts that any cell has tokenized."""
        return _encoder(
            tokenizer, str(tokenizer.chat_template), tuple(tokenizer.all_special_ids), len(tokenizer)
        )

    @cuts.default
    def _cuts_of_tokenizer(self) -> Cuts:
        return Cuts.of(self.tokenizer.backend_tokenizer)

    @_unknown.default
    def _unknown_token(self) -> tuple[int | None, str | None]:
        return self.tokenizer.unk_token_id, self.tokenizer.unk_token

    @_suspects.default
    def _suspected(self) -> frozenset[int | None]:
        return self.control | {self._unknown[0]}

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

    @cached_property
    def vocabulary(self) -> tuple[int, ...]:
        """Give the tokens that a text can have: all but control tokens and the one for what is unknown."""
        known = set(self.tokenizer.backend_tokenizer.get_vocab().values())
        return tuple(sorted(known - self._suspects))

    def opening(self, text: Text) -> list[int]:
        """Give the ids of the tokens that the tokenizer puts before a text, that of the beginning say."""
        if not self._opening:  # it is the same before every text
            for sample in ("a", text.text):  # a text without any token does not tell what is put before it
                encoded = self.tokenizer(sample, return_special_tokens_mask=True)
                if 0 in (put := list(encoded["special_tokens_mask"])):
                    self._opening.append(list(encoded["input_ids"][: put.index(0)]))
                    break
        return self._opening[0] if self._opening else []

    def prompt(self, text: Text, *, opens: bool) -> Trail:
        """Tokenize a prompt; `opens`: with what the tokenizer puts before a text."""
        key = self._prompts.key(text, opens)
        if (trail := self._prompts.kept.get(key)) is None:
            trail, _ = Trail(self, self.opening(text) if opens else []).add(text)
            self._prompts.keep(key, trail)
        return trail

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
        ids, spans = self._encoded(text.text)
        suspects = self._suspects
        if suspects.isdisjoint(ids):
            return Tokens(ids, [stop for _, stop in spans]), Text("")
        for place in [place for place, token in enumerate(ids) if token in suspects]:
            token, (start, stop) = ids[place], spans[place]
            if text.holds_data(start, stop) and self._is_control(token, text.text[start:stop]):
                if stop - start < 2:
                    return self._spelled(text, start)
                before, rest = text.parted(start + 1)
                tokens, more = self._first(before)
                return tokens, more + rest
        return Tokens(ids, [stop for _, stop in spans]), Text("")

    def _encoded(self, text: str) -> tuple[list[int], list[Span]]:
        """Give ids and spans, as the tokenizer's own call gives them, without what that does around it."""
        if (known := self._short.get(text)) is not None:  # labels stand behind the same words in every prompt
            return list(known[0]), list(known[1])
        backend = self.tokenizer.backend_tokenizer
        if backend.truncation is not None:
            backend.no_truncation()
        if backend.padding is not None:
            backend.no_padding()
        if backend.encode_special_tokens:
            backend.encode_special_tokens = False
        encoding = backend.encode(text, add_special_tokens=False)
        ids, spans = encoding.ids, encoding.offsets
        draws = getattr(backend.model, "dropout", None)  # one that drops merges reads no text twice alike
        if len(text) < SHORT and len(self._short) < KEPT_TEXTS and not draws:
            self._short[text] = list(ids), list(spans)
        return ids, spans

    def _is_control(self, token: int, text: str) -> bool:
        unknown, name = self._unknown
        return token in self.control or (token == unknown and text.strip() == name)

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
    closed: Sequence[int]  # what the tokens of no further piece are tried together with
    text: Text = Text("")
    open: Tokens = Tokens([], [])
    skipped: int = 0  # tokens of an anchor, at the beginning of `open`

    @property
    def ids(self) -> list[int]:
        """Give the ids of all pieces."""
        return [*self.closed, *self.open.ids[self.skipped :]]

    def add(self, piece: Text) -> tuple[Trail, Tokens]:
        """Give the trail with one piece more, and that piece's tokens, their ends counted from its start."""
        if not piece.text:
            return self, Tokens([], [])
        border, count = len(self.text.text), len(self.open.ids)
        whole = self.text + piece
        joint = self.encoder.tokens(whole)
        if goes_on(self.open.ids, joint, border):
            return evolve(self, text=whole, open=joint).cut(), joint.parted(count, border)
        whole, joint, skipped = self.encoder.behind(piece)
        parts = joint.parted(skipped, len(whole.text) - len(piece.text))
        return Trail(self.encoder, self.ids, whole, joint, skipped), parts

    def cut(self) -> Trail:
        """Close what further pieces need not be tokenized together with, if the tokenizer allows it."""
        if len(self.text.text) < SHORT:
            return self
        for cut in self.encoder.cuts.candidates(self.text.text, self.open.ids, self.open.ends):
            _, text = self.text.parted(cut.anchor)
            tokens, border = self.encoder.tokens(text), cut.place - cut.anchor
            skipped = sum(end <= border for end in tokens.ends)
            kept = len(tokens.ids) - skipped
            first = len(self.open.ids) - kept
            if (
                first >= self.skipped
                and kept > 0
                and tokens.ids[skipped:] == self.open.ids[first:]
                and [end + cut.anchor for end in tokens.ends[skipped:]] == self.open.ends[first:]
            ):
                closed = array("i", [*self.closed, *self.open.ids[self.skipped : first]])
                return Trail(self.encoder, closed, text, tokens, skipped)
        return self


@define
class Prompts:
    """Prompts that were tokenized, for other cells over the same data; the oldest ones go first."""

    kept: dict[bytes, Trail] = field(factory=dict)
    size: int = 0  # bytes

    @staticmethod
    def key(text: Text, opens: bool) -> bytes:
        """Give what tells prompts apart."""
        return blake2b(
            repr((text.text, text.data, opens)).encode(errors="surrogatepass"), digest_size=16
        ).digest()

    def keep(self, key: bytes, trail: Trail) -> None:
        """Keep a prompt."""
        self.kept[key] = trail
        self.size += _bytes(trail)
        while self.size > KEPT_BYTES:
            self.size -= _bytes(self.kept.pop(next(iter(self.kept))))


def _bytes(trail: Trail) -> int:
    """Estimate the memory of a trail: of an array, and of two lists of integers and a text."""
    return 4 * len(trail.closed) + 72 * len(trail.open.ids) + 2_000


@lru_cache(maxsize=2)
def _encoder(tokenizer: Tokenizer, *_what_it_hangs_on: object) -> Encoder:
    return Encoder(tokenizer)
