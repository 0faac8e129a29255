"""A plan for a model that is not on this machine has its sizes from the hub, without the weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from tiny_models import MODELS, build

ROOT = Path(__file__).parents[3]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "someone/tiny"


@contextmanager
def hub(folder: Path) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Serve a folder as a model of the hub: its address, and the paths and bytes that were sent."""
    sent: list[tuple[str, int]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, content = 404, {"X-Error-Code": "EntryNotFound"}, b""
            if self.path.startswith(f"/api/models/{NAME}"):
                files = [{"rfilename": file.name} for file in folder.iterdir()]
                content = json.dumps({"id": NAME, "sha": COMMIT, "siblings": files}).encode()
                status, headers = 200, {"Content-Type": "application/json"}
            elif (file := folder / self.path.rpartition("/")[2]).is_file():
                content, status = file.read_bytes(), 200
                headers = {"ETag": f'"{file.name}"', "X-Repo-Commit": COMMIT}
                if asked := self.headers.get("range"):
                    start, stop = (int(part) for part in asked.removeprefix("bytes=").split("-"))
                    content, status = content[start : stop + 1], 206
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                sent.append((self.path, len(content)))
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", sent
    finally:
        server.shutdown()
        server.server_close()


def planned(folder: Path, url: str, offline: str = "0") -> dict[str, Any]:
    """Plan a study of the model in a process of its own, for the hub's client reads its address once."""
    spec = folder / "study.toml"
    spec.write_text(f'name = "study"\nmodel.id = "{NAME}"\ndata.source = "graded-dialogues"\n')
    environment = os.environ | {
        "HF_ENDPOINT": url, "HF_HUB_OFFLINE": offline, "HF_HOME": str(folder / "home"),
        "ABLATION_ENGINE_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    line = [sys.executable, "-m", "engine", "plan", str(spec), "--json"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True, timeout=300)
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_sizes_come_from_headers_and_are_those_of_the_files(tmp_path: Path, name: str) -> None:
    model = build(*MODELS[name])
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(model.config.to_dict()))
    names = {key: value.clone() for key, value in model.state_dict().items()}
    save_file(names, folder / "model.safetensors")
    with hub(folder) as (url, sent):
        asked = planned(tmp_path, url)
        requests = of_model(sent)
        again = planned(tmp_path, url)
        offline = planned(tmp_path, url, offline="1")
    assert not any(path.endswith("safetensors") and size > 200_000 for path, size in sent)
    assert of_model(sent) == [*requests, f"/api/models/{NAME}"]  # the commit alone is asked for again
    here = tmp_path / "here"
    here.mkdir()
    local = planned_locally(here, folder)
    assert asked["stages"] == again["stages"]
    assert costs(asked) == costs(local) and costs(asked)
    assert not costs(offline)


def test_a_hub_that_does_not_answer_leaves_a_plan_without_numbers(tmp_path: Path) -> None:
    assert not costs(planned(tmp_path, "http://127.0.0.1:9"))


def of_model(sent: list[tuple[str, int]]) -> list[str]:
    """Give the requests but for those that the client makes for itself."""
    return [path for path, _ in sent if NAME in path]


def planned_locally(folder: Path, model: Path) -> dict[str, Any]:
    spec = folder / "study.toml"
    spec.write_text(f'name = "study"\nmodel.id = "{model}"\ndata.source = "graded-dialogues"\n')
    line = [sys.executable, "-m", "engine", "plan", str(spec), "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True, timeout=300)
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def costs(facts: dict[str, Any]) -> dict[str, float]:
    """Give the FLOPs of the stages; none where the model's sizes are not known."""
    estimate = facts["estimate"] or {}
    return {stage: cost["flops"] for stage, cost in estimate.items() if cost["flops"]}
