"""Small tokenizers of every kind, with the merges that a test asks for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<bos>", "<eos>", "<unk>", "<|im_start|>", "<|im_end|>"]
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LETTERS = [chr(code) for code in range(32, 127)] + ["\n", "é"]
# As in Llama 3: up to three digits, a space with the word behind it, signs with the line ends behind them.
SPLIT = r"\p{N}{1,3}| ?\p{L}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def fast(tokenizer: Tokenizer, *, opens: bool = True, **options: Any) -> Any:
    """A tokenizer as transformers loads it, with an end token and a chat template."""
    tokenizer.add_special_tokens(SPECIAL)
    if opens:
        number = tokenizer.token_to_id("<bos>")
        first = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", number)])
        own = [tokenizer.post_processor] if tokenizer.post_processor else []
        tokenizer.post_processor = processors.Sequence([*own, first])
    found = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>", **options
    )
    found.chat_template = CHAT
    return found


def merged(letters: Iterable[str], tokens: Iterable[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A BPE vocabulary of these letters, and the merges that make the tokens, letter by letter."""
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys([*SPECIAL, *letters]))}
    merges: dict[tuple[str, str], None] = {}
    for token in tokens:
        for end in range(2, len(token) + 1):
            merges[token[: end - 1], token[end - 1]] = None
            vocabulary.setdefault(token[:end], len(vocabulary))
    return vocabulary, list(merges)


def byte_bpe(
    tokens: Sequence[str], *, pattern: str = "gpt2", prefix_space: bool = False, opens: bool = True
) -> Any:
    """As GPT-2's (or `pattern` "llama3", "digits", "none"); a space is written Ġ, a line end Ċ."""
    vocabulary, merges = merged(sorted(pre_tokenizers.ByteLevel.alphabet()), tokens)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    level = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=pattern in ("gpt2", "digits"))
    first: dict[str, list[Any]] = {
        "digits": [pre_tokenizers.Digits(individual_digits=True)],
        "llama3": [pre_tokenizers.Split(Regex(SPLIT), "isolated")],
    }
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*first.get(pattern, []), level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return fast(tokenizer, opens=opens)


def sentencepiece_bpe(tokens: Sequence[str], *, scheme: str = "always", split: bool = True) -> Any:
    """As Llama 2's: a space is written ▁; `scheme` "normalizer" puts it before the text, split or not."""
    vocabulary, merges = merged([*LETTERS, "▁", *(f"<0x{byte:02X}>" for byte in range(256))], tokens)
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    if scheme == "normalizer":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return fast(tokenizer)


def unigram(tokens: Sequence[str], *, scheme: str = "always", folding: bool = False) -> Any:
    """As T5's: control tokens are pieces of the model, too."""
    pieces = [*((token, 0.0) for token in SPECIAL), *((letter, -9.0) for letter in [*LETTERS, "▁"])]
    pieces += [(token, -3.0 - 0.1 * len(token)) for token in dict.fromkeys(tokens) if len(token) > 1]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=SPECIAL.index("<unk>"), byte_fallback=False))
    if folding:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
        )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return fast(tokenizer)


def wordpiece(tokens: Sequence[str], *, lowercase: bool = True) -> Any:
    """As BERT's: spaces are lost, and so is case."""
    words = [token.strip("Ġ▁").replace("Ċ", "") for token in tokens]
    letters = [*LETTERS, *(f"##{letter}" for letter in LETTERS)]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys([*SPECIAL, *letters, *words]))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return fast(tokenizer)


@st.composite
def tokenizers(draw: st.DrawFn, texts: Sequence[str]) -> Any:
    """A tokenizer of any kind, with drawn pieces of these texts as tokens."""
    places = st.integers(0, max(map(len, texts)))
    cuts = draw(st.lists(st.tuples(st.sampled_from(list(texts)), places, st.integers(1, 8)), max_size=12))
    found = [text[start : start + size] for text, start, size in cuts]
    kind = draw(st.sampled_from(["byte", "sentencepiece", "unigram", "wordpiece"]))
    if kind == "byte":
        tokens = [piece.replace(" ", "Ġ").replace("\n", "Ċ") for piece in found if piece.isascii()]
        pattern = draw(st.sampled_from(["gpt2", "llama3", "digits", "none"]))
        return byte_bpe(tokens, pattern=pattern, prefix_space=draw(st.booleans()), opens=draw(st.booleans()))
    tokens = [piece.replace(" ", "▁") for piece in found]
    scheme = draw(st.sampled_from(["always", "first", "never"]))
    if kind == "sentencepiece":
        scheme = draw(st.sampled_from([scheme, "normalizer"]))
        return sentencepiece_bpe(tokens, scheme=scheme, split=draw(st.booleans()))
    if kind == "unigram":
        return unigram(tokens, scheme=scheme, folding=draw(st.booleans()))
    return wordpiece(tokens, lowercase=draw(st.booleans()))
