"""Whether the tokens of a cell's examples can be right: found out before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import evolve

from engine.data.explanations import FURTHER, further_explanations
from engine.errors import DataError, EngineError, UsageError
from engine.models.causal_lm import CausalLm
from engine.models.generation import written
from engine.text.answers import read_answer
from engine.text.pieces import PLACEMENT
from engine.text.targets import END, Encoded, Example, TargetEncoder
from specs.common.spelling import one_of
from specs.tables.loss import SEGMENTS

SAMPLED = 64  # rows that are looked at, evenly over all
LISTED = 5  # examples that an error names


def check_tokens(writer: TargetEncoder, rows: Sequence[Example], size: int) -> None:
    """Raise where a label has other tokens when it is scored than when it is trained.

    Or where it, or a text that the spec writes into targets, has an unknown one, where labels cannot be told
    apart, or where a token is none of the `size` that the model knows.
    """
    kind = type(writer.tokenizer).__name__
    _check_known(writer)
    for row in _some(rows):
        encoded = writer.encode(row)
        prompt, labels = writer.encode_labels(row)
        _, spelled = writer.encode_spellings(row)
        whole = encoded.prompt + encoded.completion
        for label, ids in zip(writer.labels, labels, strict=True):
            if writer.tokenizer.unk_token_id in ids:
                raise UsageError(
                    f'evaluate.labels: {kind} does not know "{label}" and reads it as {writer.names([ids])}; '
                    "expected a label that it knows"
                )
            scored = prompt + ids
            if label == row["label"] and whole[: len(scored)] != scored:
                raise EngineError(
                    f'evaluate.labels: {kind} reads "{label}" as {writer.names([ids])} where it is scored, '
                    f"but as {writer.names([whole[len(prompt) : len(scored)]])} where it is trained (example "
                    f"{row['id']}); expected a tokenizer that reads a text in one way"
                )
        for label, spellings in zip(writer.labels, spelled, strict=True):
            if unknown := [ids for ids in spellings if writer.tokenizer.unk_token_id in ids]:
                raise UsageError(
                    f'evaluate.spellings: {kind} does not know a spelling of "{label}" and reads it as '
                    f"{writer.names(unknown)}; expected spellings that it knows"
                )
        if (largest := max(whole)) >= size:
            raise EngineError(
                f"model.id: the tokenizer, {kind}, gives the token {writer.names([[largest]])} of number "
                f"{largest}, but the model has {size} tokens; expected the model's own tokenizer"
            )


def _check_known(writer: TargetEncoder) -> None:
    """Raise where the tokenizer does not know some of what the spec writes into every target."""
    for key, text, ids in writer.fixed_texts():
        if writer.tokenizer.unk_token_id in ids:
            expected = '"after" or "before"' if key == PLACEMENT else "a text that it knows"
            raise UsageError(
                f"{key}: {type(writer.tokenizer).__name__} does not know all of {text!r}, which stands in "
                f"every target, and reads it as {writer.names([ids])}; expected {expected}"
            )


def check_watched(writer: TargetEncoder, rows: Sequence[Example]) -> None:
    """Raise where a label begins with other tokens in one example than in another: one is watched for all."""
    first: dict[str, int] = {}
    for row in _some(rows):
        for label, token in writer.first_tokens(row).items():
            if first.setdefault(label, token) != token:
                raise UsageError(
                    f'probe.watch: {type(writer.tokenizer).__name__} begins the label "{label}" with '
                    f"{writer.names([[first[label]]])} in one example and with {writer.names([[token]])} in "
                    f"another ({row['id']}); expected a prompt.template or target.prefix that ends in the "
                    "same sign for all"
                )


def check_generated(writer: TargetEncoder, row: Example) -> None:
    """Raise where the text of a target, as the model is to write it, would not be read as its label."""
    content = writer.target.content if writer.target.content == "label" else "label+explanation"
    genuine = evolve(writer, target=evolve(writer.target, content=content, permuted=0.0))
    for label in writer.labels:
        written_row = {**row, "label": label, "explanation": "a a"}
        encoded = genuine.encode(written_row)
        prompt, begun = genuine.encode_prompt(written_row)
        tokens = (encoded.prompt + encoded.completion)[len(prompt) :]
        text = written(writer.tokenizer, prompt, tokens, begun)
        if (label_read := read_answer(text, genuine).label) != label:
            named = f'the label "{label_read}"' if label_read else "no label"
            raise UsageError(
                f"evaluate.scoring: {type(writer.tokenizer).__name__} reads a target with the label "
                f'"{label}" back as {text!r}, which names {named}; expected another label or '
                'target.separator, or scoring without "generation" and no explanation first'
            )


def encoded_split(text: TargetEncoder, rows: Sequence[Example], split: str) -> list[Encoded]:
    """Tokenize the examples of a split; DataError where an explanation would end too early."""
    encoded = [text.encode(row) for row in rows]
    check_separators(text, rows, encoded, split)
    return encoded


def encoded_variants(text: TargetEncoder, rows: Sequence[Example], split: str) -> list[Encoded]:
    """Tokenize the examples of a split with each of their explanations; DataError as `encoded_split`."""
    if text.target.content == "label" or not any(FURTHER in row for row in rows):
        return encoded_split(text, rows, split)
    numbers, variants = [], []
    for number, row in enumerate(rows):
        for explanation in (row["explanation"], *further_explanations(row)):
            numbers.append(number)
            variants.append({**row, "explanation": explanation})
    encoded = encoded_split(text, variants, split)
    return [evolve(one, example=number) for number, one in zip(numbers, encoded, strict=True)]


def check_weighted(
    writer: TargetEncoder, rows: Sequence[Example], encoded: Sequence[Encoded], split: str
) -> None:
    """Raise where an example has no token that counts in the loss: a training would learn nothing of it."""
    weights = list(writer.target.loss.weights.values())
    if all(weights):
        return
    idle = {
        rows[place if one.example is None else one.example]["id"]: set(one.segments)
        for place, one in enumerate(encoded)
        if not any(weights[segment] for segment in one.segments)
    }
    if idle:
        kinds = sorted(set().union(*idle.values()))
        keys = [f"target.loss.{SEGMENTS[kind]}" for kind in kinds]
        belongs = (
            "" if END in kinds else " (the end token tells labels apart here, and counts as the label's)"
        )
        raise UsageError(
            f"target.loss: found the weight 0 for every token of {len(idle):,} of {len(rows):,} {split} "
            f"examples ({_listed(list(idle))}); expected a weight above 0 for {one_of(keys)}{belongs}"
        )


def check_separators(
    writer: TargetEncoder, rows: Sequence[Example], encoded: Sequence[Encoded], split: str
) -> None:
    """Raise where what comes before a label holds the separator, which says where that ends.

    It is looked for as the tokenizer gives texts back. An explanation whose words a condition
    shuffles or draws anew is held against it in both forms, so that it is refused under all conditions alike.
    """
    if not writer.target.explains_first:
        return
    separator = writer.as_written(writer.form.separator)
    early = [
        row["id"]
        for row, one in zip(rows, encoded, strict=True)
        if any(_ends_early(stem, separator) for stem in _stems(writer, row, one))
    ]
    if early:
        read = "" if separator == writer.form.separator else f", as the tokenizer reads {separator!r},"
        raise DataError(
            f"target.separator: found {writer.form.separator!r}{read} in what comes before the label in "
            f"{len(early):,} of {len(rows):,} {split} examples ({_listed(early)}), where it "
            "would end the explanation too early; expected a text that is in none of them"
        )


def _stems(writer: TargetEncoder, row: Example, encoded: Encoded) -> Iterator[str]:
    """Yield the text before the label as its tokens say it, and as the genuine explanation does."""
    whole = encoded.prompt + encoded.completion
    yield written(writer.tokenizer, encoded.prompt, whole[len(encoded.prompt) : encoded.label])
    if writer.target.content != "label+filler":
        yield writer.as_written(writer.form.lay_out(row).stem)


def _ends_early(stem: str, separator: str) -> bool:
    """Tell whether a text holds the separator before its end, where the last spaces may be the label's."""
    place = stem.find(separator)
    return 0 <= place < len(stem.rstrip(" ")) - len(separator.rstrip(" "))


def token_count(model: CausalLm) -> int:
    """Give the number of tokens that a model knows."""
    return int(model.get_input_embeddings().weight.shape[0])


def _some(rows: Sequence[Example]) -> Sequence[Example]:
    return rows[:: max(1, len(rows) // SAMPLED)]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + ", …" * (len(names) > LISTED)
