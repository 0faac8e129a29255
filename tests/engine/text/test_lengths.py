"""Examples that are too long are found before the training, whatever stage would fail of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from commands import engine
from facts import facts, told
from small_study import make_tokenizer, writer
from tiny_models import MODELS

from engine.errors import DataError
from engine.stages.training.train import short_enough
from engine.text.lengths import (
    Limit,
    evaluated_length,
    fitting,
    limit_by,
    longest,
    position_limit,
    probed_length,
    question_behind,
)
from specs.tables.evaluate import Evaluate
from specs.tables.probe import Probe
from specs.tables.target import Prompt, Target
from store import Ledger, open_store
from store.backend.locate import place_of

LONG = "the model rates a reply " * 12  # some 60 tokens


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random GPT-2 of 32 learned positions."""
    folder = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=320, n_embd=16, n_layer=2, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=1
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    make_tokenizer(folder)
    return folder


def write(folder: Path, long: str | None = "row-test-1") -> Path:
    """Write 20 replies to train on and 6 to test on; one of them has a long message."""
    for split, count in (("train", 20), ("test", 6)):
        rows = [
            {
                "context": LONG if f"row-{split}-{n}" == long else f"{split} {n}", "response": f"a {n}",
                "label": str(1 + n % 3), "explanation": "in order",
            }
            for n in range(count)
        ]  # fmt: skip
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


SPEC = """
name = "long"
store = "store"
[model]
id = "{model}"
dtype = "float32"
[data]
source = "{data}"
test_split = "test"
validation_share = 0.01
[prompt]
chat_template = false
template = "{{context}} {{response}}:"
[lora]
r = 2
target_modules = ["c_attn"]
[train]
steps = 1
batch_size = 4
precision = "float32"
[evaluate]
labels = ["1", "2", "3"]
{evaluate}
[probe]
positions = ["prompt_end"]
layers = [0, 2]
"""


@pytest.fixture
def spec(tmp_path: Path, gpt2: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def made(more: str = "", evaluate: str = "", long: str | None = "row-test-1") -> Path:
        (tmp_path / "rated").mkdir(exist_ok=True)
        write(tmp_path / "rated", long)
        file = tmp_path / "long.toml"
        file.write_text(SPEC.format(model=gpt2, data=tmp_path / "rated", evaluate=evaluate) + more)
        return file

    return made


def done(stage: str) -> list[dict[str, float]]:
    ledger = Ledger(place_of("store"))
    return [ledger.record(stage, key)["summary"] for key in ledger.done(stage)]


ABLATION = '[[interventions]]\nname = "heads off"\nkind = "heads"\nlayers = [1]\n'


def test_one_test_prompt_beyond_the_positions_is_found_before_the_training(spec: Any) -> None:
    output = engine("execute", spec(ABLATION), code=1).output
    for stage in ("evaluate", "probe", "intervene"):
        assert told(output, stage, "DataError", "evaluate.too_long", "1 of 6", "32 tokens")
    assert "(test-2: " in output and "this model has 32 positions" in output
    assert done("train") == [] and "IndexError" not in output


@pytest.mark.parametrize("scoring", ["loglikelihood", "constrained", "generation"])
@pytest.mark.parametrize("placement", ["after", "before"])
def test_what_is_too_long_is_left_out_and_counted(spec: Any, scoring: str, placement: str) -> None:
    more = f'[target]\ncontent = "label+explanation"\nplacement = "{placement}"\n{ABLATION}'
    evaluate = f'too_long = "drop"\nscoring = ["{scoring}"]\nmax_new_tokens = 4'
    output = engine("execute", spec(more, evaluate)).output
    assert "1 test examples too long" in output
    (evaluated,), (probed,), (intervened,) = done("evaluate"), done("probe"), done("intervene")
    assert evaluated["test_examples"] == 5 and evaluated["test_examples_too_long"] == 1
    assert probed["probed_examples"] == 5 and probed["probed_examples_too_long"] == 1
    assert intervened["intervened_examples_too_long"] == 1
    tree = open_store("store")["long"]
    for stage in ("evaluate", "probe", "intervene"):
        found = tree[stage].to_dataset()["example"].values.tolist()
        assert sorted(found) == [f"test-{n}" for n in (1, 3, 4, 5, 6)]


def test_what_the_model_writes_counts(spec: Any) -> None:
    """Prompts that fit by themselves, but not with so many new tokens."""
    evaluate = 'scoring = ["generation"]\nmax_new_tokens = 30'
    output = engine("execute", spec(evaluate=evaluate, long=None), code=1).output
    assert told(output, "evaluate.too_long", "6 of 6", "32 tokens")
    engine("execute", spec(evaluate=evaluate.replace("30", "8"), long=None))


def test_the_specs_own_limit_holds_for_tests_too(spec: Any) -> None:
    output = engine("execute", spec(long=None), "--set", "train.max_length=8", code=1).output
    assert "train.max_length is 8" in output and done("train") == []


def test_training_examples_beyond_the_positions_are_left_out_and_counted(spec: Any) -> None:
    file = spec(evaluate="train_examples = 20", long="row-train-1")
    output = engine("execute", file).output
    assert "1 training examples too long" in output
    (trained,) = done("train")
    assert trained["train_examples_too_long"] == 1 and trained["train_examples"] >= 18


def test_an_example_that_only_one_condition_makes_too_long_fails_that_condition_alone(spec: Any) -> None:
    levels = f'[factors.target.levels]\nshort = {{}}\nlong = {{ prompt.template = "{LONG} {{context}}:" }}\n'
    output = engine("execute", spec(levels, long=None), code=1).output
    assert len(done("train")) == len(done("evaluate")) == 1
    assert told(output, "target=long", "seed=0", "evaluate", "DataError", "evaluate.too_long", "6 of 6")


def test_a_training_that_others_take_from_is_done_for_them(spec: Any) -> None:
    """A cell whose own test prompts do not fit still gives its adapter to another cell's patches."""
    long = (
        'train.lr = 1e-3, probe.enabled = false, evaluate = { max_new_tokens = 31, scoring = ["generation"] }'
    )
    levels = f"[factors.target.levels]\nshort = {{}}\nlong = {{ {long} }}\n"
    patch = '[[interventions]]\nname = "in"\nkind = "patch"\ncells = { target = "short" }\n'
    patch += 'donor = { target = "long" }\n'
    output = engine("execute", spec(levels + patch, long=None), code=1).output
    assert len(done("train")) == 2 and len(done("intervene")) == 1, output


def test_the_report_shows_the_lengths_of_test_examples(spec: Any) -> None:
    output = engine("data", spec()).output
    lines = [line for line in output.splitlines() if line.startswith("│ all")]
    train, test = ([cell.strip() for cell in line.split("│")[2:-1]] for line in lines)
    assert len(train) == len(test) == 6 and train[-2:] == ["0", "32"]
    assert test[-2:] == ["1", "32"] and int(test[3]) > 32 and int(test[2]) <= 32


@pytest.mark.parametrize("name", MODELS)
def test_the_positions_of_every_architecture_are_known(name: str) -> None:
    kind, options = MODELS[name]
    assert position_limit(getattr(transformers, kind)(**options)) == 64


def test_what_bounds_a_sequence() -> None:
    llama = transformers.LlamaConfig(max_position_embeddings=64)
    assert limit_by(llama, 32) == Limit(32, "train.max_length is 32")
    assert limit_by(llama, 1024) == Limit(64, "this model has 64 positions")
    sliding = transformers.MistralConfig(max_position_embeddings=64, sliding_window=8)
    assert position_limit(sliding) == 64
    assert position_limit(transformers.BloomConfig()) is None  # its attention fades with distance
    text = transformers.Gemma3TextConfig(max_position_embeddings=48)
    assert position_limit(transformers.Gemma3Config(text_config=text.to_dict())) == 48
    with pytest.raises(DataError, match=facts("64 positions", "training")):
        short_enough([[0] * 65], limit_by(llama, 1024))  # type: ignore[list-item]


def test_lengths_are_those_of_what_is_run(tokenizer: Any) -> None:
    row = {"id": "a", "context": "is", "response": "good", "label": "1", "explanation": "words in order"}
    text = writer(tokenizer, target=Target(content="label+explanation"))
    prompt, labels = text.encode_spellings(row)
    scored = len(prompt) + max(len(ids) for spellings in labels for ids in spellings)
    assert evaluated_length(text, row, Evaluate(labels=["1", "2", "3"])) == scored
    written = Evaluate(labels=["1", "2", "3"], scoring=["generation"], max_new_tokens=9)
    assert evaluated_length(text, row, written) == len(text.encode_prompt(row)[0]) + 9
    whole = text.encode(row)
    assert probed_length(text, row, Probe(positions=["prompt_end"])) == len(whole.prompt)
    assert probed_length(text, row, Probe(positions=["completion_end", -1])) == len(whole)
    before = writer(tokenizer, target=Target(content="label+explanation", placement="before"))
    both = Evaluate(labels=["1", "2", "3"], max_new_tokens=9)
    assert evaluated_length(before, row, both) > len(before.encode_prompt(row)[0]) + 9
    assert Prompt().chat_template


def test_rows_without_one_that_fits_are_an_error_either_way() -> None:
    rows = [{"id": f"r{n}"} for n in range(9)]
    sizes = {f"r{n}": n for n in range(9)}
    limit = Limit(6, "train.max_length is 6")
    assert fitting(rows, lambda row: sizes[row["id"]], limit, "drop") == rows[:7]
    with pytest.raises(DataError, match=facts("2 of 9", "6 tokens", "r7: 7, r8: 8")):
        fitting(rows, lambda row: sizes[row["id"]], limit, "error")
    with pytest.raises(DataError, match=facts("9 of 9", "r0: 99, r1: 99, r2: 99, r3: 99, r4: 99, …")):
        fitting(rows, lambda row: 99, limit, "drop")


def test_a_written_explanation_takes_no_more_positions_than_there_are(tokenizer: Any) -> None:
    """Half a character is one token where it is written, and three where its text is read again."""
    row = {"id": "a", "context": "is", "response": "good", "label": "1", "explanation": "words in order"}
    text = writer(tokenizer, target=Target(content="label+explanation", placement="before"))
    written = "in order \ufffd\ufffd\ufffd"
    free = question_behind(text, row, written, None)
    assert free == text.encode_spellings(row, written)
    assert question_behind(text, row, written, longest(free)) == free
    bound = question_behind(text, row, written, longest(free) - 1)
    assert bound == text.encode_spellings(row, "in order") and longest(bound) < longest(free)
    bare = longest(text.encode_spellings(row, ""))
    assert longest(question_behind(text, row, "\ufffd" * 40, bare)) == bare
