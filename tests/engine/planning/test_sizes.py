"""Sizes of models and data: parameters as the model has them, and lengths as the texts have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from gguf_files import gguf_of
from tiny_models import MODELS, build

from engine.planning.estimate import WEIGHT_BYTES
from engine.planning.sizes import SAMPLED_ROWS, card_of, data_card, model_card
from engine.planning.training_memory import BYTES
from specs.tables.data import Columns, Data
from specs.tables.experiment import Model
from specs.tables.fields import FloatType, Quantization

# Their layers stand under `.layers.` or `.h.`; an encoder has layers of its own.
DECODERS = sorted(set(MODELS) - {"bart", "gemma 3 with a vision tower", "mpt, a scale that it does not read"})


def counted(model: Any) -> tuple[int, int]:
    """The parameters of the decoder layers, and of all modules, each tensor once."""
    parameters = dict(model.named_parameters())
    inside = [p.numel() for name, p in parameters.items() if ".layers." in name or ".h." in name]
    return sum(inside), sum(p.numel() for p in parameters.values())


@pytest.mark.parametrize("name", DECODERS)
def test_the_parts_of_a_model_add_up_to_its_parameters(name: str) -> None:
    model = build(*MODELS[name])
    config, shapes = model.config.to_dict(), {key: list(p.shape) for key, p in model.named_parameters()}
    card = card_of(config, shapes)
    assert card is not None
    body, whole = counted(model)
    assert card.parameters == body
    assert card.parameters + card.unembedding + card.outside == whole
    assert (card.hidden, card.vocabulary) == (32, 96)


def test_a_tied_head_counts_once_though_its_file_may_hold_it_twice() -> None:
    body = {"model.layers.0.mlp.up_proj.weight": [8, 4], "model.embed_tokens.weight": [10, 4]}
    sizes = {"num_hidden_layers": 1, "hidden_size": 4, "vocab_size": 10}
    tied, untied = sizes | {"tie_word_embeddings": True}, sizes | {"tie_word_embeddings": False}
    both = body | {"lm_head.weight": [10, 4]}
    outside = [
        card.outside for c, s in ((tied, body), (tied, both), (untied, both)) if (card := card_of(c, s))
    ]
    assert outside == [0, 0, 40]


@pytest.mark.parametrize("lacking", ["num_hidden_layers", "hidden_size"])
def test_a_configuration_that_says_too_little_gives_no_card(lacking: str) -> None:
    sizes = {"num_hidden_layers": 1, "hidden_size": 4, "vocab_size": 10}
    shapes = {"model.layers.0.mlp.up_proj.weight": [8, 4]}
    assert card_of(sizes, shapes) is not None
    assert card_of({key: value for key, value in sizes.items() if key != lacking}, shapes) is None


def test_folder_and_gguf_file_of_one_model_have_the_same_sizes(tiny_model: Path, tmp_path: Path) -> None:
    gguf_of(tiny_model, tmp_path / "model.gguf")
    folder = model_card(Model(id=str(tiny_model)))
    file = model_card(Model(id=str(tmp_path), gguf_file="model.gguf"))
    assert folder is not None and file is not None
    for field in ("layers", "hidden", "vocabulary", "heads", "parameters", "outside"):
        assert getattr(file, field) == getattr(folder, field), field
    assert (folder.layers, folder.hidden, folder.vocabulary, folder.heads) == (3, 32, 320, 4)
    assert (folder.chat_template, file.chat_template) == (True, False)
    assert model_card(Model(id=str(tiny_model))) == folder  # as it is remembered


def test_what_a_spec_trains_in_full_is_counted_by_its_modules(tiny_model: Path) -> None:
    card = model_card(Model(id=str(tiny_model)))
    assert card is not None
    assert card.facts.trained(["lm_head"], card.unembedding) == 320 * 32
    assert card.facts.trained(["up_proj"], card.unembedding) == 3 * 64 * 32
    assert card.facts.trained(["up_proj", "lm_head"], card.unembedding) == 3 * 64 * 32 + 320 * 32
    assert card.facts.trained([], card.unembedding) == 0


def test_a_tied_head_is_trained_as_the_weights_of_its_own_that_it_becomes() -> None:
    sizes = {"num_hidden_layers": 1, "hidden_size": 4, "vocab_size": 10}
    shapes = {"model.layers.0.mlp.up_proj.weight": [8, 4], "model.embed_tokens.weight": [10, 4]}
    for more, trained in (({}, 40), ({"lm_head.weight": [10, 4]}, 40)):
        card = card_of(sizes, shapes | more)
        assert card is not None and card.facts.trained(["lm_head"], card.unembedding) == trained


def test_a_model_that_is_not_here_has_no_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert model_card(Model(id="somebody/model")) is None


def test_a_model_in_the_hubs_cache_is_read_at_its_revision(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--somebody--model"
    (repository / "snapshots").mkdir(parents=True)
    (repository / "snapshots" / "c0ffee").symlink_to(tiny_model)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c0ffee\n")
    here = model_card(Model(id=str(tiny_model)))
    assert model_card(Model(id="somebody/model")) == here
    assert model_card(Model(id="somebody/model", revision="c0ffee")) == here
    assert model_card(Model(id="somebody/model", revision="other")) is None


def data(*files: Path, **more: Any) -> Data:
    return Data(source=[str(file) for file in files], columns=Columns(explanation="why"), **more)


def rows(file: Path, texts: list[tuple[str, str, str]]) -> Path:
    file.write_text(
        "".join(json.dumps({"context": a, "response": b, "why": c, "label": "1"}) + "\n" for a, b, c in texts)
    )
    return file


def test_the_length_of_texts_is_that_of_the_rows(tmp_path: Path) -> None:
    file = rows(tmp_path / "a.jsonl", [("ab", "cde", "f"), ("a", "b", "cdefg"), ("", "abcdefghij", "")])
    card = data_card(data(file))
    assert card is not None
    assert (card.prompt, card.explanation) == (pytest.approx(17 / 3), pytest.approx(2))
    assert (card.longest_prompt, card.longest_explanation) == (10, 5)


def test_each_source_counts_alike_and_the_longest_of_all_counts(tmp_path: Path) -> None:
    many = rows(tmp_path / "many.jsonl", [("a", "b", "c")] * 9)
    one = rows(tmp_path / "one.jsonl", [("abcde", "fgh", "ij")])
    card = data_card(data(many, one))
    assert card is not None
    assert (card.prompt, card.explanation) == (5, 1.5)
    assert (card.longest_prompt, card.longest_explanation) == (8, 2)


def test_only_the_first_rows_are_read_and_missing_files_are_left_out(tmp_path: Path) -> None:
    short = [("a", "b", "c")] * SAMPLED_ROWS
    file = rows(tmp_path / "a.jsonl", [*short, ("long" * 100, "b", "c")])
    card = data_card(data(file, tmp_path / "missing.jsonl"))
    assert card is not None and card.longest_prompt == 2
    assert data_card(data(tmp_path / "missing.jsonl")) is None


def test_reading_sizes_builds_no_tensor(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "__new__", lambda *_: pytest.fail("a tensor was made"))
    monkeypatch.setenv("ABLATION_ENGINE_CACHE", str(tiny_model.parent / "another-cache"))
    assert model_card(Model(id=str(tiny_model))) is not None


def test_every_type_of_weights_that_a_spec_may_name_has_a_size() -> None:
    assert set(BYTES) == set(get_args(FloatType)) and set(WEIGHT_BYTES) == set(get_args(Quantization))
