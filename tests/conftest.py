"""Real parts, small: a random-weight Llama with a byte-level tokenizer, a data file, a spec over both."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # no test looks anything up on a hub

from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings

# Drawing is slow on a busy machine, and that is no failure of the code under test.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

TEXT = "the model rates a reply as good or bad because words are in order and on topic"
WORDS = TEXT.split()


class Ended(NamedTuple):
    """How a call of the command ended."""

    code: int
    output: str  # standard output and standard error, as they came


def engine(*arguments: object, code: int = 0) -> Ended:
    """Run the command `engine` in this process; check its exit code."""
    found, output = command(*arguments)
    if isinstance(found, BaseException):
        raise found
    assert found == code, output
    return Ended(code, output)


def command(*arguments: object) -> tuple[object, str]:
    """Run a command in this process; give its exit code, or the error that escaped it, and its output."""
    from engine.cli.main import main

    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["engine", *map(str, arguments)])
        patch.setenv("COLUMNS", "200")
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            try:
                main()
                code: object = 0
            except SystemExit as end:
                code = int(end.code or 0)
            except BaseException as error:  # what no command may let through
                code = error
    return code, output.getvalue()


def ran(*outputs: str) -> Counter[str]:
    """Add up what several executions say that they ran."""
    total: Counter[str] = Counter()
    for output in outputs:
        (said,) = re.findall(r"^Ran (.*); store", output, re.MULTILINE)
        for number, stage in re.findall(r"(\d+) (\w+)", said):
            total[stage] += int(number)
    return total


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep fingerprints and converted models out of the person's own cache, but shared by the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ABLATION_ENGINE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def make_tokenizer(folder: Path, *, pad: str | None = None) -> None:
    """Save a byte-level BPE tokenizer trained on a few words; pad None leaves it without padding token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<bos>", "<eos>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 8, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token=pad
    )
    fast.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    fast.save_pretrained(str(folder))


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The small tokenizer, without padding token."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


def writer(tokenizer: Any, **options: Any) -> Any:
    """A writer for labels 1 to 3 after a plain prompt."""
    from engine.text.targets import TargetEncoder
    from specs.tables.experiment import Prompt, Target

    defaults = {
        "prompt": Prompt(template="{context} {response}:", chat_template=False), "target": Target(),
        "labels": ["1", "2", "3"], "dimension": "naturalness", "seed": 0,
    }  # fmt: skip
    return TargetEncoder(tokenizer=tokenizer, **(defaults | options))


def make_llama(folder: Path, **sizes: int) -> Path:
    """Save a random-weight Llama of these sizes, V = 320, with its tokenizer; give the folder."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=320, bos_token_id=0, eos_token_id=1, tie_word_embeddings=False, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    make_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random-weight Llama: 3 layers, D = 32, V = 320."""
    import torch

    torch.manual_seed(0)
    return make_llama(
        tmp_path_factory.mktemp("tiny-llama"),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )


@pytest.fixture(scope="session")
def rated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JSONL file of 60 rated replies."""
    file = tmp_path_factory.mktemp("data") / "rated.jsonl"
    rows = [
        {
            "context": f"message {number}",
            "response": " ".join(WORDS[number % 7 : number % 7 + 4]),
            "rating": str(1 + number % 3),
            "why": f"because {WORDS[number % 5]} is {WORDS[number % 11]}",
        }
        for number in range(60)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


TARGETS = """
[factors.target.levels]
label = { target.content = "label" }
"label+explanation" = { target.content = "label+explanation" }
"""


def spec_text(
    root: Path,
    model: Path,
    data: Path,
    more: str = "",
    *,
    name: str = "small",
    train: str = "steps = 2",
    seeds: tuple[int, ...] = (0, 1),
    factors: str = TARGETS,
) -> str:
    """A small spec over the tiny model, two targets by two seeds, with further TOML appended."""
    return f"""
name = "{name}"
seeds = {list(seeds)}
store = "{root}"

[model]
id = "{model}"
dtype = "float32"

[data]
source = "{data}"
columns = {{ label = "rating", explanation = "why" }}
train = 8
test = 6

[prompt]
chat_template = false
template = "{{context}} {{response}}:"

[lora]
r = 2

[train]
{train}
batch_size = 4
precision = "float32"

[evaluate]
labels = ["1", "2", "3"]

{factors}

{more}
"""


def small_spec(
    folder: Path, model: Path, data: Path, more: str = "", *, name: str = "small", train: str = "steps = 2"
) -> Path:
    """Write a small spec; its store is the folder `store` beside it."""
    spec = folder / f"{name}.toml"
    spec.write_text(spec_text(folder / "store", model, data, more, name=name, train=train))
    return spec


@pytest.fixture
def write_spec(tmp_path: Path, tiny_model: Path, rated_file: Path):
    """Give a function that writes a small spec over the tiny model, with further TOML appended."""
    return partial(small_spec, tmp_path, tiny_model, rated_file)


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rated_file: Path) -> Path:
    """The store of a small spec, probed at two positions, for tests that only read it."""
    folder = tmp_path_factory.mktemp("small")
    more = '[probe]\npositions = ["prompt_end", "completion_end"]\n'
    engine("execute", small_spec(folder, tiny_model, rated_file, more))
    return folder / "store"
