"""The model card of an adapter: what it is, how well it does, how it is loaded, and the spec that made it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from string import Formatter
from typing import Any

from engine.planning.levels import describe
from engine.publishing.facts import Measured, PublishedCell, public_name, settings_of
from specs.tables.experiment import Model

CONTENT = """\
---
{header}
---

# {title}

A LoRA adapter of an ablation study: experiment `{experiment}`, cell `{levels}`. It was trained by
[ablation-engine](https://pypi.org/project/ablation-engine/) {version}, and loads with peft alone.

## Load

{load}
{notes}
The prompt is {prompt}. It reads, with an example's own texts in braces:

{template}

The model answers with one of {labels}{target}.

## Results

{results}

## Data

| | |
| --- | --- |
{data}

## Spec

The settings of this cell that differ from the defaults:

{spec}

## Made by

| | |
| --- | --- |
{made}
"""


def model_card(published: PublishedCell, base: str, name: str) -> str:
    """Write a model card (README.md).

    Args:
        published: the adapter and what is known of it.
        base: the base model as readers of the card can load it: a hub id, if it is not a local folder.
        name: what readers load the adapter by: a hub id or a folder.
    """
    matrix, cell = published.matrix, published.cell
    model, prompt = matrix.table("model", cell), matrix.table("prompt", cell)
    evaluate, target = matrix.table("evaluate", cell), matrix.table("target", cell)
    packages: dict[str, str] = published.record["provenance"]["packages"]
    study = {"dimension": matrix.table("data", cell).dimension, "labels": ", ".join(evaluate.labels)}
    texts = [_filled(text, study) for text in (prompt.system, prompt.template) if text]
    with_explanation = "" if target.content == "label" else f"; it was trained on `{target.content}`"
    return CONTENT.format(
        header=_header(published, base),
        title=published.title,
        experiment=published.experiment,
        levels=describe(published.levels),
        version=packages["ablation-engine"],
        load=_fenced("python", _load(model, base, name)),
        notes=_notes(published),
        prompt="a user's message in the tokenizer's chat template" if prompt.chat_template else "plain text",
        template=_fenced("text", "\n\n".join(texts)),
        labels=", ".join(evaluate.labels),
        target=with_explanation,
        results=_results(published),
        data=_rows(
            {
                "source": _source(matrix.table("data", cell).source),
                "fingerprint of its content": f"`{published.fingerprint}`",
                **{name.replace("_", " "): f"{number:,.0f}" for name, number in published.data.items()},
            }
        ),
        spec=_fenced("toml", _toml(settings_of(matrix, cell))),
        made=_rows(
            {
                "stage key of the training": f"`{published.key}`",
                "code": published.record["provenance"]["git"] or "a release",
                "packages": ", ".join(f"{name} {version}" for name, version in packages.items()),
            }
        ),
    )


def _header(published: PublishedCell, base: str) -> str:
    """Give the metadata by which the hub knows a model, as YAML."""
    from huggingface_hub import EvalResult, ModelCardData

    accuracies = [row for row in published.measured if row.outcome == "accuracy" and row.seeds == 1]
    source = _source(published.matrix.table("data", published.cell).source)
    results = [
        EvalResult(
            task_type="text-classification",
            dataset_type=source,
            dataset_name=source,
            metric_type="accuracy",
            metric_value=row.mean,
            metric_name=f"accuracy, 95% interval {row.low:.3f} to {row.high:.3f}",
        )
        for row in accuracies[:1]
    ]
    data = ModelCardData(
        base_model=base,
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["lora", "ablation-engine"],
        model_name=published.title,
        eval_results=results or None,
    )
    return data.to_yaml()


def _load(model: Model, base: str, name: str) -> str:
    """Give the lines that load the adapter."""
    options = [f"dtype=torch.{model.dtype}"]
    which = {key: getattr(model, key) for key in ("revision", "gguf_file")}
    options += [f"{key}={_text(value)}" for key, value in which.items() if value]
    of_tokenizer = "".join(f", {option}" for option in options[1:])
    return "\n".join(
        [
            "import torch",
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f"base = AutoModelForCausalLM.from_pretrained({_text(base)}, {', '.join(options)})",
            f"model = PeftModel.from_pretrained(base, {_text(name)}).eval()",
            f"tokenizer = AutoTokenizer.from_pretrained({_text(base)}{of_tokenizer})",
        ]
    )


def _filled(template: str, study: Mapping[str, str]) -> str:
    """Fill in the fields that all examples share; those of an example stay, in braces."""
    parts = Formatter().parse(template)
    return "".join(
        literal + ("" if name is None else study.get(name, f"{{{name}}}")) for literal, name, _, _ in parts
    )


def _text(text: str) -> str:
    """Give a text as Python spells it."""
    return json.dumps(text, ensure_ascii=False)


def _notes(published: PublishedCell) -> str:
    """Say what else loading needs; "" where nothing."""
    model = published.matrix.table("model", published.cell)
    lora = published.matrix.table("lora", published.cell)
    notes = []
    if model.quantization != "none":
        notes.append(f"The base model was quantised when it was trained and evaluated: {model.quantization}.")
    if model.trust_remote_code:
        notes.append("The base model's repository has code of its own: `trust_remote_code=True`.")
    if lora.modules_to_save and model.dtype != "float32":
        notes.append(
            f"{', '.join(lora.modules_to_save)} were trained in float32; peft rounds them to the base's."
        )
    return "\n" + "\n".join(notes) + "\n" if notes else ""


def _results(published: PublishedCell) -> str:
    if not published.measured:
        return "Not evaluated yet."
    lines = [
        "| cells | measure | mean | 95% interval | examples | seeds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [_result(row) for row in published.measured]
    lines.append("")
    lines.append("Intervals are over groups of test examples and, where there are several, over seeds.")
    if published.untrained is not None:
        lines.append(f"The base model without adapter has an accuracy of {published.untrained:.3f}.")
    return "\n".join(lines)


def _result(row: Measured) -> str:
    interval = "none" if math.isnan(row.low) else f"{row.low:.3f} to {row.high:.3f}"
    cells = [row.levels, row.outcome, f"{row.mean:.3f}", interval, f"{row.examples:,}", str(row.seeds)]
    return f"| {' | '.join(map(_in_cell, cells))} |"


def _source(source: str | list[str]) -> str:
    return ", ".join(map(public_name, [source] if isinstance(source, str) else source))


def _rows(facts: dict[str, str]) -> str:
    return "\n".join(f"| {name} | {_in_cell(fact)} |" for name, fact in facts.items())


def _in_cell(text: str) -> str:
    """Give a text that ends no cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _fenced(language: str, text: str) -> str:
    """Give a text as a block of code, whatever is in it."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _toml(settings: dict[str, Any]) -> str:
    import tomlkit

    return tomlkit.dumps(settings)
