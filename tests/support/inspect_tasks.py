"""A small stand-in for Inspect, as an installed package, and a file of tasks for it and the real one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

# What the stages rely on: names, signatures, and that it changes logging and the environment.
FILES = {
    "inspect_ai-0.3.285.dist-info/METADATA": "Metadata-Version: 2.1\nName: inspect_ai\nVersion: 0.3.285\n",
    "inspect_ai/__init__.py": """
import asyncio, json, logging, os, random, runpy
from pathlib import Path
from types import SimpleNamespace as Plain
from inspect_ai.model import GenerateConfig


class Task:
    def __init__(self, dataset, solver, scorer):
        self.samples, self.wanted = dataset, scorer


def task(function):
    return function


def eval(tasks, model, *, limit, log_dir, log_level, log_realtime, display, score_display, ctl_server,
         max_connections, max_samples, max_tasks, seed, max_tokens=None):
    assert display == "none" and not (log_realtime or score_display or ctl_server)
    logging.getLogger().addHandler(logging.NullHandler())
    os.environ["INSPECT_STAND_IN"] = "1"
    random.random()
    file, _, name = tasks.partition("@")
    folder = Path(file).parent
    before = Path.cwd()
    os.chdir(folder)
    try:
        task = runpy.run_path(file)[name]()
    finally:
        os.chdir(before)
    config = GenerateConfig(max_tokens=max_tokens or model.api.max_tokens(), seed=seed)

    async def one(sample):
        messages = [Plain(role="user", content=sample["input"], text=sample["input"])]
        return (await model.api.generate(messages, [], None, config)).completion

    async def run():
        return await asyncio.gather(*map(one, task.samples[:limit]))

    try:
        texts = asyncio.run(run())
    except Exception as error:
        return [Plain(status="error", error=Plain(message=str(error)))]
    values = [float(text.count(task.wanted)) for text in texts]
    mean = sum(values) / len(values)
    metrics = {"mean": Plain(value=mean), "stderr": Plain(value=mean / 10), "words": Plain(value="none")}
    score = Plain(name="count", scorer="count", reducer=None, metrics=metrics)
    samples = [Plain(sample_id=number, value=value) for number, value in enumerate(values, 1)]
    reductions = [Plain(scorer="count", reducer=None, samples=samples)]
    log = Plain(status="success", error=None, eval=Plain(task=name), results=Plain(scores=[score]))
    log.reductions = reductions
    return [log]
""",
    "inspect_ai/dataset.py": """
import json


def json_dataset(file):
    return [json.loads(line) for line in open(file)]
""",
    "inspect_ai/solver.py": "def generate():\n    return None\n",
    "inspect_ai/scorer.py": """
def scorer(metrics):
    return lambda function: lambda: "o"


def mean():
    return "mean"


def stderr():
    return "stderr"


class Score:
    pass
""",
    "inspect_ai/model.py": """
from types import SimpleNamespace


class GenerateConfig(SimpleNamespace):
    def __getattr__(self, name):
        return None


class ModelAPI:
    def __init__(self, model_name):
        self.model_name = model_name


def modelapi(name):
    return lambda kind: kind


class Model:
    def __init__(self, api, config):
        self.api = api


class ChatMessageAssistant(SimpleNamespace):
    pass


class ChatCompletionChoice(SimpleNamespace):
    pass


class ModelUsage(SimpleNamespace):
    pass


class ModelOutput(SimpleNamespace):
    @property
    def completion(self):
        return self.choices[0].message.content
""",
}

TASKS = """
from inspect_ai import Task, task
from inspect_ai.dataset import json_dataset
from inspect_ai.scorer import Score, mean, scorer, stderr
from inspect_ai.solver import generate


@scorer(metrics=[mean(), stderr()])
def count():
    async def score(state, target):
        return Score(value=float(state.output.completion.count("o")))

    return score


@task
def letters():
    return Task(dataset=json_dataset("questions.jsonl"), solver=generate(), scorer=count())
"""


def stand_in(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Install the stand-in into a folder, for as long as the patch holds."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for name in [name for name in sys.modules if name.partition(".")[0] == "inspect_ai"]:
        patch.delitem(sys.modules, name)
    patch.syspath_prepend(folder)


def write_tasks(folder: Path, more: str = "") -> Path:
    """Write a file with the task `letters` and its data; give its path."""
    folder.mkdir(exist_ok=True)
    words = ["on topic", "in order", "good or bad", "as words are", "the model"]
    rows = [{"input": f"{words[i % 5]} {words[i % 3]} {i}", "target": "o"} for i in range(9)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = folder / "tasks.py"
    file.write_text(TASKS + more)
    return file
