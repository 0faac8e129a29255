"""A loaded model as Inspect asks it: by its ModelAPI, many conversations at once, written in batches."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import define, field

from engine.errors import DataError
from engine.models.causal_lm import CausalLm
from engine.models.generation import own_ends
from engine.models.generation_batches import GenerationBatches
from engine.models.sampling import Draws, numbers
from engine.models.tokenizer import Tokenizer
from engine.models.windows import window_size
from engine.text.lengths import position_limit
from specs.tables.sampling import Sampling

MOST_TOKENS = 2048  # of an answer, where neither spec nor task has a number: as Inspect's own provider
PROVIDER = "ablation-engine"  # what Inspect calls where the model comes from
QUIET = 0.02  # seconds without a further question, after which those that wait are answered
# What a task may ask for that is not done here, rather than left out without a word.
UNSUPPORTED = (
    "logprobs", "prompt_logprobs", "num_choices", "best_of", "top_k", "frequency_penalty", "presence_penalty",
    "logit_bias", "response_schema",
)  # fmt: skip


@define(eq=False)
class Question:
    """One conversation to go on with."""

    prompt: list[int]
    most: int  # tokens of the answer
    stops: tuple[str, ...]
    sampling: Sampling | None  # None: greedy
    numbers: Iterator[float]
    answer: list[int] | None = None

    @property
    def kind(self) -> tuple[Any, ...]:
        """What questions of one batch have in common."""
        sampling = self.sampling and (self.sampling.temperature, self.sampling.top_p)
        return self.most, self.stops, sampling


@define(eq=False)
class Answering:
    """Answers what waits: all at once that come within a moment, in batches of one kind.

    failure: what ended it, which Inspect takes for a mistake of the sample that was asked last.
    """

    model: CausalLm
    tokenizer: Tokenizer
    batches: GenerationBatches
    seed: int
    failure: BaseException | None = None
    _waiting: list[Question] = field(factory=list)
    _asked: Counter[str] = field(factory=Counter)

    @property
    def most(self) -> int:
        """How many questions may wait at once: enough that few batches are not whole."""
        return window_size(self.batches.rows)

    def question(self, messages: Sequence[Any], config: Any) -> Question:
        """Read what Inspect asks for; DataError for what is not done here."""
        for name in UNSUPPORTED:
            if getattr(config, name, None) not in (None, 1):
                raise DataError(f"the task asks for {name}, which is not done here")
        text = self.text(messages)
        prompt = list(self.tokenizer(text)["input_ids"])
        positions = position_limit(self.model.config)
        if positions is not None and len(prompt) >= positions:
            raise DataError(
                f"a prompt of {len(prompt):,} tokens leaves none of the model's {positions:,} positions for "
                "an answer"
            )
        most = config.max_tokens if positions is None else min(config.max_tokens, positions - len(prompt))
        sampling = None
        if config.temperature:
            top_p = 1.0 if config.top_p is None else config.top_p
            sampling = Sampling(samples=1, temperature=config.temperature, top_p=top_p)
        name = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        self._asked[name] += 1
        drawn = numbers(self.seed if config.seed is None else config.seed, name, self._asked[name])
        stops = tuple(config.stop_seqs or ())
        return Question(prompt, most, stops, sampling, drawn)

    def text(self, messages: Sequence[Any]) -> str:
        """Give a conversation as the model reads it: by its chat template, or each role before its text."""
        for message in messages:
            for part in message.content if isinstance(message.content, list) else ():
                if part.type not in ("text", "reasoning"):
                    raise DataError(
                        f"the task shows the model content of the type {part.type}, which it cannot read"
                    )
        turns = [{"role": message.role, "content": message.text} for message in messages]
        if self.tokenizer.chat_template is None:
            return "".join(f"{turn['role']}: {turn['content']}\n" for turn in turns)
        return str(self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))

    async def answer(self, question: Question) -> str:
        """Give the text that the model writes."""
        import anyio

        self._waiting.append(question)
        while question.answer is None:
            waiting = len(self._waiting)
            if waiting < self.most:
                await anyio.sleep(QUIET)
            if question.answer is None and len(self._waiting) == waiting:
                self._write()
        return self.tokenizer.decode(
            question.answer, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def _write(self) -> None:
        """Answer all that wait."""
        questions, self._waiting = self._waiting, []
        try:
            if self.failure is not None:
                raise self.failure
            for kind in dict.fromkeys(question.kind for question in questions):
                self._write_batch([question for question in questions if question.kind == kind])
        except BaseException as error:
            self.failure = error
            raise

    def _write_batch(self, questions: list[Question]) -> None:
        def draws(places: Sequence[int]) -> Draws | None:
            sampling = questions[0].sampling
            return Draws(sampling, [questions[place].numbers for place in places]) if sampling else None

        answers = self.batches.generate(
            self.model,
            self.tokenizer,
            [question.prompt for question in questions],
            questions[0].most,
            draws,
            ends=own_ends(self.model, self.tokenizer),
            stops=questions[0].stops,
        )
        for question, tokens in zip(questions, answers, strict=True):
            question.answer = tokens


def as_inspect_model(answering: Answering) -> Any:
    """Give the model as Inspect's `Model`."""
    from inspect_ai.model import (
        ChatCompletionChoice,
        ChatMessageAssistant,
        GenerateConfig,
        Model,
        ModelAPI,
        ModelOutput,
        ModelUsage,
        modelapi,
    )

    class LoadedModel(ModelAPI):
        async def generate(self, input: Any, tools: Any, tool_choice: Any, config: Any) -> Any:
            try:
                if tools:
                    raise DataError("the task gives the model tools, which is not done here")
                question = answering.question(input, config)
            except DataError as error:
                answering.failure = error
                raise
            text = await answering.answer(question)
            read, written = len(question.prompt), len(question.answer or ())
            message = ChatMessageAssistant(content=text, model=self.model_name, source="generate")
            usage = ModelUsage(input_tokens=read, output_tokens=written, total_tokens=read + written)
            choice = ChatCompletionChoice(message=message)
            return ModelOutput(model=self.model_name, choices=[choice], usage=usage)

        def max_tokens(self) -> int:
            return MOST_TOKENS

        def max_connections(self) -> int:
            return answering.most

        def collapse_user_messages(self) -> bool:
            return True

    return Model(modelapi(name=PROVIDER)(LoadedModel)("model"), GenerateConfig())
