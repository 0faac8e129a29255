"""Names of modules in `[lora]` that a model's weights do not have, but something very like them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from engine.planning.layer_facts import Facts
from engine.planning.plan import Plan
from engine.planning.sizes import model_card

VERY_LIKE = 0.75  # of 1, as difflib has it


def misspelt_modules(plan: Plan) -> Iterator[str]:
    """Yield a sentence for each name that looks misspelt.

    Weights may have other names than the modules that a model is built of, so a name that is like none of
    them is left to the training, which has the modules themselves.
    """
    sentences: dict[str, None] = {}  # each once
    for choice in plan.matrix.distinct("model", "lora"):
        model, lora = plan.matrix.table("model", choice), plan.matrix.table("lora", choice)
        lists = {"target_modules": lora.target_modules, "modules_to_save": lora.modules_to_save}
        for key, names in lists.items():
            card = None if isinstance(names, str) else model_card(model)  # a text is a pattern
            for name, near in _misspelt(names, card.facts) if card else []:
                lacking = f"which the weights of {model.id} do not have"
                sentences[f'lora.{key}: found "{name}", {lacking}; the nearest is "{near}"'] = None
    yield from sentences


def _misspelt(names: Iterable[str], facts: Facts) -> Iterator[tuple[str, str]]:
    """Yield the names that no weight has, each with the one that is very like it."""
    paths = [*facts.modules, *(module.path for module in facts.linear)]
    parts = sorted({part for path in paths for part in path.split(".") if part and not part.isdigit()})
    for name in names:
        near = get_close_matches(name, parts, n=1, cutoff=VERY_LIKE)
        if near and not any(path.endswith(name) for path in paths) and name not in parts:
            yield name, near[0]
