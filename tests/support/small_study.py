"""Real parts, small: a random-weight Llama with a byte-level tokenizer, and a spec over it and data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TEXT = "the model rates a reply as good or bad because words are in order and on topic"
WORDS = TEXT.split()
# By which a small spec goes through every stage.
EVERY_STAGE = """
[probe]
examples = 4
positions = ["prompt_end", "completion_end"]
lens = "tuned"
[probe.tuned]
steps = 4
tokens = 40

[[interventions]]
name = "off"
kind = "mask"
"""


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


def writer(tokenizer: Any, **options: Any) -> Any:
    """A writer for labels 1 to 3 after a plain prompt."""
    from engine.text.targets import TargetEncoder
    from specs.tables.target import Prompt, Target

    defaults = {
        "prompt": Prompt(template="{context} {response}:", chat_template=False), "target": Target(),
        "labels": ["1", "2", "3"], "dimension": "naturalness", "seed": 0,
    }  # fmt: skip
    return TargetEncoder(tokenizer=tokenizer, **(defaults | options))


def log_likelihood(model: Any, prompt: list[int], ids: list[int]) -> float:
    """Sum the log-probabilities of tokens behind a prompt, by one forward pass, in float64."""
    import torch

    logprobs = model(input_ids=torch.tensor([prompt + ids])).logits[0].double().log_softmax(-1)
    return sum(logprobs[len(prompt) - 1 + i, token].item() for i, token in enumerate(ids))


def make_llama(folder: Path, *, tied: bool = False, **sizes: int) -> Path:
    """Save a random-weight Llama of these sizes, V = 320, with its tokenizer; give the folder."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=320, bos_token_id=0, eos_token_id=1, tie_word_embeddings=tied, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    make_tokenizer(folder)
    return folder


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
