"""What `docs/models.md` says of some of transformers' architectures; its script walks over all of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from benchmarks.architectures import Outcome, page, try_kind
from benchmarks.tiny_configs import tiny

PAGE = Path(__file__).parents[3] / "docs" / "models.md"
# The page is of one release; others have other types, and may say another sentence.
OF_THIS_RELEASE = f"transformers {transformers.__version__}," in PAGE.read_text("utf-8")

WORK = [
    "llama", "qwen3_moe", "gemma2", "gemma3", "granitemoehybrid", "falcon_h1", "deepseek_v3", "llama4",
    "phimoe", "mamba", "bloom", "openai-gpt", "xglm", "bart", "git", "phi4_multimodal",
]  # fmt: skip
REFUSED = {
    "bert": "BertLMHeadModel unembed to differ from the model's own",
    "bert-generation": "tokens see later ones",
    "deepseek_v4": "do not hand on one residual stream",
    "hrm_text": "does not run each of its 2 layers once",
    "inkling2_text": "the last layer's residual stream of Inkling2ForCausalLM",
    "rembert": "RemBertForCausalLM",
    "xlnet": "do not hand on one residual stream",
}


def stated() -> dict[str, str]:
    """The page's outcomes by type."""
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text("utf-8").splitlines() if "|" in line]
    return {row[0]: row[-1] for row in rows}


def there(kinds: Iterable[str]) -> list[str]:
    """Those that this release of transformers has."""
    return [kind for kind in kinds if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES]


@pytest.mark.parametrize("kind", there(WORK))
def test_an_architecture_works_from_the_lens_to_the_training(kind: str) -> None:
    outcome = try_kind(kind)
    assert outcome.result == "works", outcome.why
    assert not OF_THIS_RELEASE or stated()[kind].startswith("works")


@pytest.mark.parametrize("kind", there(REFUSED))
def test_an_architecture_is_refused_in_a_sentence(kind: str) -> None:
    outcome = try_kind(kind)
    assert outcome.result == "refused" and REFUSED[kind] in outcome.why
    assert not OF_THIS_RELEASE or stated()[kind].startswith("refused: ")


@pytest.mark.skipif(not OF_THIS_RELEASE, reason="the page is of another release of transformers")
def test_the_page_tells_of_every_type_and_of_no_failure() -> None:
    found = stated()
    assert set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) <= found.keys()
    assert not [kind for kind, outcome in found.items() if outcome.startswith("FAILED")]


def test_a_page_has_a_row_for_each_outcome() -> None:
    text = page([Outcome("b", "B", "works"), Outcome("a", "A", "refused", "why")])
    assert text.endswith("| a | A | refused: why |\n| b | B | works |\n") and "2 types: 1 " in text


def test_a_tiny_configuration_is_tiny_and_its_own() -> None:
    config = tiny("gemma3", tie_word_embeddings=False)
    assert config.text_config.hidden_size == 32 and config.vision_config.num_hidden_layers == 2
    assert not config.tie_word_embeddings
