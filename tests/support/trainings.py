"""Small trainings of a random-weight model, for the tests of the train stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from engine.errors import Interrupted
from engine.progress import StopRequest, silent
from engine.stages.training.files import Trained
from engine.stages.training.together.side_by_side import Beside, side_by_side
from engine.stages.training.train import train_adapter
from engine.text.targets import Encoded
from specs.tables.experiment import Lora, Train
from store.backend.locate import place_of

EOS = 1
EXAMPLES = [
    Encoded(prompt, completion, len(prompt))
    for prompt, completion in (
        ([10, 11, 12], [20, EOS]),
        ([13, 14], [21, 22, EOS]),
        ([15], [23, EOS]),
        ([16, 17, 18, 19], [24, EOS]),
    )
]


def example(number: int, prompt: int, completion: int) -> Encoded:
    """An example of so many tokens of prompt, and of completion before its end."""
    return Encoded(
        [10 + (number + 3 * place) % 50 for place in range(prompt)],
        [20 + (7 * number + place) % 50 for place in range(completion)] + [EOS],
        prompt,
    )


# Lengths, also of completions, that a mean of the parts' means would weigh wrongly.
UNEVEN = [
    example(number, *sizes)
    for number, sizes in enumerate([(3, 1), (40, 12), (2, 9), (11, 1), (30, 3), (1, 1), (5, 20), (17, 2)])
]
FAST = Train(steps=3, batch_size=2, precision="float32", lr=1e-2)


def many(count: int) -> list[Encoded]:
    """So many examples, all different, of different lengths."""
    return [
        Encoded(prompt, [60 + number, *range(1, 1 + number % 3), EOS], len(prompt))
        for number in range(count)
        for prompt in [[30 + number, *range(10, 11 + number % 4)]]
    ]


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """A frozen model."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).requires_grad_(False).eval()


def train(
    base: Any, tokenizer: Any, folder: Path, examples: Any = EXAMPLES, validation: Any = (), **options: Any
) -> Trained:
    """Train an adapter into a folder; give what was saved with it."""
    defaults = {
        "lora": Lora(r=2), "settings": FAST, "seed": 0, "report": silent, "stop": StopRequest(),
    }  # fmt: skip
    return train_adapter(base, tokenizer, examples, validation, home=place_of(folder), **(defaults | options))


def interrupted(step: int, *arguments: Any, **options: Any) -> None:
    """Begin a training that is asked to stop at this step, and does."""
    stop = StopRequest()

    def report(done: int, total: int, text: str) -> None:
        stop.requested |= done == step - 1  # noticed at the end of the next step

    stop.requested = step == 1
    with pytest.raises(Interrupted):
        train(*arguments, report=report, stop=stop, **options)


def saved_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of the adapter that was saved in a training's folder."""
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def token_losses(model: Any, examples: Sequence[Encoded]) -> list[float]:
    """The loss of every completion's token, from the model's whole logits of each example by itself."""
    losses = []
    for example in examples:
        ids = torch.tensor([example.prompt + example.completion])
        logits = model(input_ids=ids).logits.double().log_softmax(-1)[0]
        first = len(example.prompt)
        losses += [-logits[first + i - 1, token].item() for i, token in enumerate(example.completion)]
    return losses


def together(
    base: Any, tokenizer: Any, folder: Path, trainings: Mapping[str, Mapping[str, Any]]
) -> dict[str, Trained | Exception]:
    """Do trainings side by side, each into a folder of its name; give what was saved, or what it raised."""
    found: dict[str, Trained | Exception] = {}

    def training(name: str, options: Mapping[str, Any], beside: Beside) -> None:
        try:
            found[name] = train(base, tokenizer, folder / name, beside=beside, **options)
        except Exception as error:
            found[name] = error

    side_by_side(base, [partial(training, name, options) for name, options in trainings.items()])
    return found


def differences(left: Path, right: Path) -> float:
    """The largest difference of two adapters, by the largest weight."""
    one, other = saved_weights(left), saved_weights(right)
    size = max(weight.abs().max().item() for weight in one.values())
    return max((one[name] - other[name]).abs().max().item() for name in one) / size
