"""A small stand-in for lm-evaluation-harness, as an installed package, and a task for it and the real one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

# What the stages rely on: names and signatures; that it seeds, ties weights and sets a padding token.
FILES = {
    "lm_eval-0.4.13.dist-info/METADATA": "Metadata-Version: 2.1\nName: lm_eval\nVersion: 0.4.13\n",
    "lm_eval/__init__.py": """
import random
import numpy as np
import torch


def simple_evaluate(model, *, tasks, num_fewshot, limit, task_manager, log_samples, bootstrap_iters):
    random.seed(0), np.random.seed(1234), torch.manual_seed(1234)
    assert task_manager.match_tasks(tasks) and log_samples and bootstrap_iters
    if "broken" in tasks:
        raise ConnectionError("no data set")
    if num_fewshot is not None:
        limit = limit + num_fewshot
    count = limit or 8
    values = model.model(input_ids=torch.arange(3, 3 + count)[None]).logits[0].std(-1).tolist()
    value = sum(values) / count
    numbers = {"alias": "x", "sample_len": 8, "acc,none": value, "acc_stderr,none": value / 10}
    inner = {"f1,strict-match": 0.5, "f1_stderr,strict-match": "N/A", "acc,none": 0.25, "word,none": 3.0}
    results = {name: numbers for name in tasks} | {"inside": inner}
    def documents(metric, filtered, values):
        known = {"filter": filtered, "metrics": [metric]}
        return [{"doc_id": number, metric: value, **known} for number, value in enumerate(values)]
    samples = {name: documents("acc", "none", values) for name in tasks if name != "group"}
    samples["inside"] = documents("f1", "strict-match", [0.0, 1.0]) + documents("acc", "none", [0, 0, 0, 1])
    samples["inside"] += documents("word", "none", [(1.0, 2), (2.0, 3)])
    groups = {name: ["inside"] for name in tasks if name == "group"}
    return {"results": results, "group_subtasks": groups, "samples": samples}
""",
    "lm_eval/tasks.py": """
class TaskManager:
    def __init__(self, include_path=None):
        self.all_tasks = ["group", "inside", "hellaswag", "arc", "broken"]

    def match_tasks(self, names):
        return [name for name in names if name in self.all_tasks]
""",
    "lm_eval/models/__init__.py": "",
    "lm_eval/models/huggingface.py": """
class HFLM:
    def __init__(self, *, pretrained, tokenizer, batch_size):
        assert batch_size > 0
        pretrained.tie_weights()
        tokenizer.pad_token = tokenizer.eos_token
        self.model = pretrained
""",
}

CHOICES = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{ test: "{data}" }}
test_split: test
output_type: multiple_choice
doc_to_text: "a reply is {{{{text}}}} and"
doc_to_choice: [" good", " bad words"]
doc_to_target: label
metric_list:
  - metric: acc
  - metric: acc_norm
"""
WRITTEN = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{ test: "{data}" }}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - metric: word_perplexity
  - metric: bits_per_byte
"""


def stand_in(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Install the stand-in into a folder, for as long as the patch holds."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"]:
        patch.delitem(sys.modules, name)
    patch.syspath_prepend(folder)


def write_tasks(folder: Path) -> Path:
    """Write the tasks `choices` and `written` with their data; give their folder."""
    folder.mkdir()
    words = ["on topic", "in order", "good or bad", "as words are", "the model"]
    rows = [{"text": f"{words[i % 5]} {words[i % 3]}", "label": i % 2} for i in range(12)]
    (folder / "rows.json").write_text(json.dumps(rows))
    for name, text in (("choices", CHOICES), ("written", WRITTEN)):
        (folder / f"{name}.yaml").write_text(text.format(name=name, data=folder / "rows.json"))
    return folder
