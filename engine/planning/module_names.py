"""Names of modules in `[lora]` that a model's weights do not have, but something very like them."""

from __future__ import annotations

from collections.abc import Iterator

from engine.planning.plan import Plan
from engine.planning.sizes import model_card
from specs.common.spelling import alike


def misspelt_modules(plan: Plan) -> Iterator[str]:
    """Yield a sentence for each name that looks misspelt.

    Weights may have other names than the modules that a model is built of, so a name that is like none of
    them is left to the training, which has the modules themselves.
    """
    told: set[tuple[str, str, str]] = set()
    for choice in plan.matrix.distinct("model", "lora"):
        model, lora = plan.matrix.table("model", choice), plan.matrix.table("lora", choice)
        card = model_card(model)
        if card is None:
            continue
        paths = [*card.facts.modules, *(module.path for module in card.facts.linear)]
        parts = sorted({part for path in paths for part in path.split(".") if part and not part.isdigit()})
        for key, names in (
            ("target_modules", lora.target_modules),
            ("modules_to_save", lora.modules_to_save),
        ):
            for name in [] if isinstance(names, str) else names:
                near = alike(name, parts)
                known = name in parts or any(path.endswith(name) for path in paths)
                if known or not near or (key, name, model.id) in told:
                    continue
                told.add((key, name, model.id))
                yield f'lora.{key}: found "{name}", which the weights of {model.id} do not have{near}'
