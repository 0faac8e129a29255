"""Answers in text: written freely, or with the label held to the labels while the explanation is free."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from attrs import frozen

from engine.models.batching import by_length, padding_id
from engine.models.causal_lm import CausalLm
from engine.models.generation import written
from engine.models.generation_batches import GenerationBatches
from engine.models.lens import Lens
from engine.models.sampling import Draws, drawn_spelling, numbers
from engine.models.scoring import PromptPasses, Question, Spelling, constrained_spelling, score_spellings
from engine.text.answers import ParsedAnswer, answer_of, read_answer
from engine.text.lengths import position_limit, question_behind
from engine.text.targets import Example, TargetEncoder
from specs.tables.evaluate import Evaluate


@frozen
class Answers:
    """Writes the answers to some test examples, greedily or as one sample of each.

    done: called with the number of examples whose text or whose labels' scores have come. sample: the number
    of the sample; None: greedy. What is drawn for an example hangs on the seed, the example and that number
    alone.
    """

    model: CausalLm
    lens: Lens
    writer: TargetEncoder
    settings: Evaluate
    batches: GenerationBatches
    done: Callable[[int], None]
    sample: int | None = None

    def free(self, rows: Sequence[Example]) -> list[str]:
        """Give the answers that the model writes by itself."""
        prompts, begun = zip(*(self.writer.encode_prompt(row) for row in rows), strict=True)
        tokens = self._written(rows, prompts, "text")
        return [written(self.writer.tokenizer, *row) for row in zip(prompts, tokens, begun, strict=True)]

    def read(self, texts: Sequence[str]) -> list[ParsedAnswer]:
        """Give what the texts say."""
        return [read_answer(text, self.writer) for text in texts]

    def questions(self, rows: Sequence[Example], answers: Sequence[ParsedAnswer]) -> list[Question]:
        """Give prompts and labels; where an explanation comes first, behind the one that was written."""
        if not self.writer.target.explains_first:
            return [self.writer.encode_spellings(row) for row in rows]
        positions = position_limit(self.model.config)
        return [
            question_behind(self.writer, row, answer.before, positions)
            for row, answer in zip(rows, answers, strict=True)
        ]

    def scored(
        self,
        questions: Sequence[Question],
        passes: Callable[[list[int]], PromptPasses | None] = lambda _places: None,
    ) -> list[list[Spelling]]:
        """Score the labels of questions, in batches of similar length.

        passes: gives what runs the model for the questions at some places, None for the lens.
        """
        padding, scores = padding_id(self.writer.tokenizer), list[list[Spelling]]([[]] * len(questions))
        for places in by_length([len(prompt) for prompt, _ in questions], self.settings.batch_size):
            batch = [questions[place] for place in places]
            for place, spellings in zip(
                places, score_spellings(self.lens, batch, padding, passes(places)), strict=True
            ):
                scores[place] = spellings
            self.done(len(places))
        return scores

    def constrained(self, rows: Sequence[Example]) -> list[tuple[str, ParsedAnswer]]:
        """Give texts, and what they say, whose label is one of the labels, at its place."""
        answers = self.read(self.free(rows)) if self.writer.target.explains_first else []
        questions = self.questions(rows, answers)
        return self.completed(rows, answers, questions, self.scored(questions))

    def completed(
        self,
        examples: Sequence[Example],
        answers: Sequence[ParsedAnswer],
        questions: Sequence[Question],
        scored: Sequence[Sequence[Spelling]],
    ) -> list[tuple[str, ParsedAnswer]]:
        """Go on from scored questions: with a label, and with what the target has behind it."""
        writer, tokenizer = self.writer, self.writer.tokenizer
        chosen = [self._label(row, spellings) for row, spellings in zip(examples, scored, strict=True)]
        prompts = [prompt + label.ids for (prompt, _), label in zip(questions, chosen, strict=True)]
        rests: list[list[int]] = [[] for _ in examples]
        going_on = [
            place
            for place, prompt in enumerate(prompts)
            if writer.form.may_go_on and prompt[-1] != writer.end
        ]
        if going_on:
            rows = [examples[place] for place in going_on]
            tokens = self._written(rows, [prompts[place] for place in going_on], "rest")
            for place, rest in zip(going_on, tokens, strict=True):
                rests[place] = rest
        made = []
        for place, (row, label) in enumerate(zip(examples, chosen, strict=True)):
            begin, begun = writer.encode_prompt(row)
            tokens_behind = [*prompts[place][len(begin) :], *rests[place]]
            text = written(tokenizer, begin, tokens_behind, begun)
            rest_text = written(tokenizer, prompts[place], rests[place]) if rests[place] else ""
            before = answers[place].before if answers else ""
            made.append((text, answer_of(writer.labels[label.label], before, rest_text, writer)))
        return made

    def _label(self, row: Example, spellings: Sequence[Spelling]) -> Spelling:
        if self.sample is None:
            return constrained_spelling(spellings)
        return drawn_spelling(spellings, self.settings.sampling, self._numbers(row, "label"))

    def _written(
        self, rows: Sequence[Example], prompts: Sequence[Sequence[int]], part: str
    ) -> list[list[int]]:
        def draws(places: Sequence[int]) -> Draws | None:
            if self.sample is None:
                return None
            return Draws(self.settings.sampling, [self._numbers(rows[place], part) for place in places])

        length = self.settings.new_tokens(self.writer.target)
        return self.batches.generate(
            self.model, self.writer.tokenizer, prompts, length, draws=draws, done=self.done
        )

    def _numbers(self, row: Example, part: str) -> Iterator[float]:
        assert self.sample is not None
        return numbers(self.writer.seed, row["id"], self.sample, part)
