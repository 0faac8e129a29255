"""From an example to token ids: what the model reads (the prompt) and what it is to write (the target).

Training and scoring put the same pieces together (engine.text.pieces), so the tokens that are scored and
watched for a label are those that it is trained with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from attrs import field, frozen

from engine.data.visible import visible
from engine.errors import UsageError
from engine.models.tokenizer import Tokenizer
from engine.planning.data_read import test_data, test_prompt
from engine.planning.plan import Plan, PlannedCell
from engine.text.encoding import Text, Trail
from engine.text.label_prefixes import Sequences, clash, parted, shortest
from engine.text.layout import Form
from engine.text.pieces import Begun, Example, Pieces
from engine.text.pseudo_explanations import Word
from specs.tables.loss import SEGMENTS
from specs.tables.target import Prompt, Target

LABEL, EXPLANATION, END = range(len(SEGMENTS))

__all__ = ["Encoded", "Example", "TargetEncoder", "cell_writer"]


@frozen
class Encoded:
    """One example as token ids; the loss counts `completion` alone."""

    prompt: list[int]
    completion: list[int]
    label: int  # place of the label's first token in prompt + completion
    label_size: int = 1  # tokens by which the label is told from the others
    example: int | None = None  # number of the example, where several of these are one's

    @property
    def segments(self) -> list[int]:
        """Number the segment of each token of the completion: its place among `SEGMENTS`."""
        label = self.label - len(self.prompt)
        kinds = [EXPLANATION] * len(self.completion)
        kinds[-1] = END
        kinds[label : label + self.label_size] = [LABEL] * self.label_size
        return kinds

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


@frozen
class TargetEncoder:
    """Turns examples into text and token ids, for one tokenizer and one cell's settings.

    `spellings`: further texts that mean a label. `examples` are those that pseudo-explanations are drawn
    from.
    """

    tokenizer: Tokenizer
    prompt: Prompt
    target: Target
    labels: list[str]
    dimension: str
    seed: int
    spellings: Mapping[str, Sequence[str]] = field(factory=dict)
    examples: Callable[[], Iterable[Example]] = list
    _pieces: Pieces = field(init=False, repr=False)

    @_pieces.default
    def _make_pieces(self) -> Pieces:
        study = {"dimension": self.dimension, "labels": ", ".join(self.labels)}
        return Pieces(self.tokenizer, self.prompt, self.target, study, self.seed, self.examples)

    @property
    def form(self) -> Form:
        """Give the parts of a target that the spec writes."""
        return self._pieces.form

    def fixed_texts(self) -> Iterator[tuple[str, str, list[int]]]:
        """Yield key, text and tokens of what the spec writes into every target."""
        return self._pieces.fixed_texts()

    def as_written(self, text: str) -> str:
        """Give a text as the tokenizer gives it back where it stands between words: in lower case, say."""
        ids = self._pieces.encoder.tokens(Text.of_data(f"a{text}a")).ids
        decoded = str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()
        return decoded[1:-1] if len(decoded) > 1 else text

    @property
    def spelled(self) -> dict[str, list[str]]:
        """Give every label's spellings, its own text first."""
        return {label: [label, *self.spellings.get(label, ())] for label in self.labels}

    @property
    def end(self) -> int:
        """Give the id of the token that ends every target. UsageError where the tokenizer has none."""
        if self.tokenizer.eos_token_id is None:
            raise UsageError(
                f"model.end_token: the tokenizer, {type(self.tokenizer).__name__}, has no end token; "
                "expected the text of the token that ends an answer"
                + "".join(f', "{token}" perhaps' for token in self.tokenizer.all_special_tokens[:1])
            )
        return int(self.tokenizer.eos_token_id)

    def prompt_text(self, example: Example) -> str:
        """Give the text before the target, with the chat template applied where the spec asks for it."""
        return self._pieces.prompt(example).text

    def encode(self, example: Example) -> Encoded:
        """Tokenize prompt and target; the completion ends with the end-of-sequence token."""
        begun = self._pieces.begin(example)
        whole = [*begun.prompt, *self._pieces.completion(example, begun), self.end]
        shared, labels = self._labels(example, begun)
        label = len(begun.prompt) + len(begun.stem.ids) + len(shared)
        border = len(begun.prompt) if self.target.explains_first else label
        # As it is scored: with what follows it, where that tells labels apart.
        size = len(labels[self.labels.index(example["label"])])
        return Encoded(whole[:border], whole[border:], label, size)

    def encode_prompt(self, example: Example) -> tuple[list[int], list[int]]:
        """Tokenize what the model goes on from when it writes by itself.

        Give those of its tokens, too, with which all labels begin, if they are more than spaces: they are the
        beginning of the answer.
        """
        begun = self._pieces.begin(example)
        if self.target.explains_first:
            return begun.prompt, []
        prompt = self.encode_spellings(example)[0]
        shared = prompt[len(begun.prompt) + len(begun.stem.ids) :]
        return prompt, shared if str(self.tokenizer.decode(shared)).strip() else []

    def encode_labels(
        self, example: Example, explanation: str | None = None
    ) -> tuple[list[int], list[list[int]]]:
        """Tokenize the prompt, and every label as it would follow that prompt: as it would be trained.

        Where the explanation comes first it belongs to the prompt: the given one, or the example's own, or
        the pseudo-explanation in its place.

        Tokens with which all labels begin (a space of its own, say) say nothing about the label; they are
        given to the prompt, whose last position then is the one that predicts the label. Where the tokens
        of one label begin another label ("1" and "10"), what follows the label in this example's target is
        added to each, so that the two are told apart.
        """
        begun = self._pieces.begin(example, explanation)
        shared, labels = self._labels(example, begun)
        return self._condition(example, begun, explanation) + shared, labels

    def first_tokens(self, example: Example) -> dict[str, int]:
        """Give the token of each label that tells it from the others first: the one that is watched."""
        # What follows the labels may have to tell them apart: that of an explanation, if the row has none.
        row = example if visible(example["explanation"]) else {**example, "explanation": "a a"}
        _, labels = self.encode_labels(row)
        return {label: ids[0] for label, ids in zip(self.labels, labels, strict=True)}

    def encode_spellings(
        self, example: Example, explanation: str | None = None
    ) -> tuple[list[int], list[list[list[int]]]]:
        """Tokenize the prompt, and every spelling of each label, its own text first.

        As `encode_labels`, with the spellings of all labels in the labels' place. Of one label's spellings
        that begin each other the shortest alone is kept: an answer that begins with "5/5" begins with "5".
        Where what follows a spelling has to be added, there is one sequence for the end of the text and,
        where an explanation may follow, one for that. So no token sequence begins another, over all labels:
        the answers that begin with each are disjoint events, and their probabilities add up.
        """
        begun = self._pieces.begin(example, explanation)
        shared, groups = self._parted(begun, list(self.spelled.values()), self.form.may_go_on, True)
        return self._condition(example, begun, explanation) + shared, groups

    def explanation_words(self, example: Example) -> list[Word]:
        """Give the tokens of each word of the genuine explanation, as they stand in the target."""
        return self._pieces.explanation_words(example)

    def explanation_places(self, example: Example) -> list[int]:
        """Give where the explanation's words, or a pseudo-explanation's, stand in prompt + completion."""
        return self._pieces.explanation_places(example)

    def _condition(self, example: Example, begun: Begun, explanation: str | None) -> list[int]:
        """Give the tokens before any label, those of a pseudo-explanation among them."""
        stem = begun.stem.ids
        if explanation is None and self.target.explains_first and self._pieces.draws:
            stem = self._pieces.completion(example, begun)[: len(stem)]
        return begun.prompt + stem

    def _labels(self, example: Example, begun: Begun) -> tuple[list[int], list[list[int]]]:
        """Give the tokens with which all labels begin, and those of each label behind them."""
        goes_on = bool(self.form.lay_out(example).rest)
        shared, groups = self._parted(begun, [[label] for label in self.labels], goes_on, not goes_on)
        return shared, [ids for (ids,) in groups]

    def _parted(
        self, begun: Begun, labels: Sequence[Sequence[str]], goes_on: bool, ends: bool
    ) -> tuple[list[int], list[Sequences]]:
        """Give the tokens with which all texts of all labels begin, and those that each has behind them.

        Where a text of one label begins one of another, what follows is added: the text between label and
        explanation if the target `goes_on`, the end token if it `ends`.
        """
        texts = [[begun.label(text) for text in label] for label in labels]
        beginnings = [shortest(ids for _, ids in label) for label in texts]

        def closed(trail: Trail, ids: list[int]) -> Iterator[list[int]]:
            if goes_on:
                yield [*ids, *trail.add(Text.of_data(self.form.closer))[1].ids]
            if ends:
                yield [*ids, self.end]

        if clash(beginnings):
            beginnings = [shortest(ids for text in label for ids in closed(*text)) for label in texts]
        if places := clash(beginnings):
            (one, ours), (other, theirs) = ((labels[place][0], beginnings[place]) for place in places)
            sign = ", or a target.separator that begins with a sign" if goes_on else ""
            raise UsageError(
                f'evaluate.labels: the tokens of "{one}", or of a spelling of it, begin "{other}" as well, '
                f"and what follows them in the target: {type(self.tokenizer).__name__} reads "
                f"{self.names(ours)} and {self.names(theirs)}; expected labels that can be told apart{sign}"
            )
        return parted(beginnings)

    def names(self, sequences: Iterable[Sequence[int]]) -> str:
        """Give token sequences as a person reads them: by the tokens' names."""
        return " or ".join(str(self.tokenizer.convert_ids_to_tokens(list(ids))) for ids in sequences)


def cell_writer(
    plan: Plan,
    cell: PlannedCell,
    tokenizer: Tokenizer,
    examples: Callable[[], Iterable[Example]],
    target: Target | None = None,
    *,
    test: bool,
) -> TargetEncoder:
    """Give the writer of a cell's training or test examples.

    Args:
        plan: the plan.
        cell: one of its cells.
        tokenizer: the model's.
        examples: gives the examples of the training split.
        target: another than the cell's own.
        test: whether test examples are written, to which `[evaluate.data]` and `[evaluate.prompt]` apply.
    """
    matrix, choice = plan.matrix, cell.choice
    evaluate = matrix.table("evaluate", choice)
    return TargetEncoder(
        tokenizer=tokenizer,
        prompt=test_prompt(matrix, choice) if test else matrix.table("prompt", choice),
        target=target or matrix.table("target", choice),
        labels=list(evaluate.labels),
        spellings=evaluate.spellings,
        dimension=(test_data(matrix, choice) if test else matrix.table("data", choice)).dimension,
        seed=matrix.seed(choice),
        examples=examples,
    )
