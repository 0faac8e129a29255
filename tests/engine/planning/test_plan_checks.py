"""`engine plan` finds what cannot run from the files at hand, with file and line, before anything runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import engine
from drawn_tokenizers import byte_bpe, sentencepiece_bpe, unigram, wordpiece
from facts import told
from safetensors.torch import save_file
from small_study import small_spec
from transformers import AutoTokenizer, MambaConfig, MambaForCausalLM, MixtralConfig, MixtralForCausalLM

import engine as python
from engine.models import gpus
from engine.planning.vocabulary import vocabulary
from specs.tables.experiment import Model


def line_of(spec: Path, text: str) -> int:
    return next(n for n, line in enumerate(spec.read_text().splitlines(), start=1) if text in line)


@pytest.mark.parametrize("command", ["plan", "execute"])
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("train = 8", "train = 80", "data.train … 80"),
        ("test = 6", "test = 1_000_000", "data.test … 1,000,000"),
        (
            "chat_template = false",
            "chat_template = true",
            "chat template",
        ),
    ],
)
def test_what_the_files_do_not_hold(write_spec, tiny_model, tmp_path, command, old, new, said) -> None:
    spec = write_spec()
    model = tmp_path / "model"
    model.mkdir()
    for file in tiny_model.iterdir():
        if file.name != "chat_template.jinja":
            (model / file.name).write_bytes(file.read_bytes())
    spec.write_text(spec.read_text().replace(old, new).replace(str(tiny_model), str(model)))
    output = engine(command, spec, code=2).output
    assert f"{spec}:{line_of(spec, new)}:" in output and told(output, said)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("more", "line", "said"),
    [
        ("[probe]\nlayers = [0, 4]\n", "layers = [", "probe.layers: found 4; expected -4 to 3"),
        (
            '[factors.depth.levels]\nall = {}\nlast = { probe.layers = [-9] }\n', "last = {",
            "probe.layers: found -9; expected -4 to 3",
        ),
        (
            '[[interventions]]\nname = "off"\nkind = "mask"\nlayers = [7]\n', "layers = [7]",
            "interventions[0].layers: found 7 … 1 to 3",
        ),
    ],
)  # fmt: skip
def test_layers_that_the_model_lacks(write_spec, more: str, line: str, said: str) -> None:
    spec = write_spec(more)
    output = engine("plan", spec, code=2).output
    assert f"{spec}:{line_of(spec, line)}:" in output and told(output, said)


@pytest.mark.parametrize("name", ["./models/none", "model.gguf", "a/b/c", "/nowhere/llama", "~/none/at/all"])
def test_a_model_that_is_spelled_as_a_path_but_is_not_there(write_spec, tiny_model, name: str) -> None:
    spec = write_spec()
    spec.write_text(spec.read_text().replace(str(tiny_model), name))
    output = engine("plan", spec, code=2).output
    assert f"{spec}:{line_of(spec, name)}:" in output and told(output, "which is no file or folder")


def test_a_hub_id_is_no_path(write_spec, tiny_model) -> None:
    spec = write_spec()
    spec.write_text(spec.read_text().replace(str(tiny_model), "some/model"))
    assert "No estimate" in engine("plan", spec).output


def test_a_folder_without_weights_is_not_said_to_be_downloaded_yet(write_spec, tiny_model, tmp_path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny_model, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    spec = write_spec()
    spec.write_text(spec.read_text().replace(str(tiny_model), str(bare)))
    output = engine("plan", spec).output
    assert told(output, "No estimate", str(bare), "no weights") and "download" not in output


def test_states_of_recurrent_layers_are_said_to_be_left_out(write_spec, tiny_model, tmp_path) -> None:
    folder = tmp_path / "mamba"
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    config = MambaConfig(vocab_size=320, hidden_size=16, num_hidden_layers=2, state_size=4)
    MambaForCausalLM(config).save_pretrained(folder)
    spec = write_spec()
    assert "recurrent layers" not in engine("plan", spec).output
    spec.write_text(spec.read_text().replace(str(tiny_model), str(folder)))
    assert told(engine("plan", spec).output, str(folder), "recurrent layers", "engine plan --exact")


def test_what_cannot_be_counted_is_said_without_a_traceback(write_spec, tiny_model, tmp_path) -> None:
    """Torch's product of experts has no form without content but in bfloat16."""
    folder = tmp_path / "mixtral"
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    sizes = {"vocab_size": 320, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    experts = {"num_local_experts": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    MixtralForCausalLM(MixtralConfig(**sizes, **experts)).save_pretrained(folder)
    spec = write_spec()
    spec.write_text(spec.read_text().replace(str(tiny_model), str(folder)))
    command = [sys.executable, "-m", "engine", "plan", str(spec), "--exact"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0 and "Traceback" not in ended.stdout + ended.stderr
    assert "by the rule" in ended.stdout


def test_the_most_that_a_split_holds_is_enough(write_spec, rated_file) -> None:
    spec = write_spec()
    spec.write_text(spec.read_text().replace("train = 8", "train = 100_000"))
    said = engine("plan", spec, code=2).output
    most = said.rpartition("expected at most ")[2].split()[0]
    assert int(most) < len(rated_file.read_text().splitlines())
    spec.write_text(spec.read_text().replace("train = 100_000", f"train = {most}"))
    engine("plan", spec)


@pytest.mark.parametrize(("kept", "said"), [(0, "holds no row"), (1, "no train examples")])
def test_data_without_a_train_or_test_example_are_told(
    write_spec, rated_file, tmp_path, kept: int, said: str
) -> None:
    """A plan warns in the words with which the data stage would refuse them."""
    few = tmp_path / "few.jsonl"
    rows = [line for line in rated_file.read_text().splitlines() if json.loads(line)["rating"] == "1"]
    few.write_text("".join(f"{line}\n" for line in rows[:kept]))
    spec = write_spec()
    sizes = ("--set", "data.train=null", "--set", "data.test=null", "--set", "data.holdout=0.999999")
    spec.write_text(spec.read_text().replace(str(rated_file), str(few)))
    assert told(engine("plan", spec, *sizes).output, said)
    assert told(engine("execute", spec, *sizes, code=1).output, said)


def test_wrong_data_are_left_to_the_data_stage(write_spec, rated_file, tmp_path) -> None:
    rows = [json.loads(line) | {"rating": "9"} for line in rated_file.read_text().splitlines()]
    bad = tmp_path / "bad.jsonl"
    bad.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = write_spec()
    spec.write_text(spec.read_text().replace(str(rated_file), str(bad)))
    engine("plan", spec)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", b""),
        ("model.safetensors", LFS),
        ("model.safetensors", b"\x02\0\0\0\0\0\0\0[]"),
        ("config.json", b"[]"),
    ],
)
def test_a_damaged_model_is_no_crash_of_the_plan(write_spec, tiny_model, tmp_path, file, content) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (model / file).write_bytes(content)
    spec = write_spec()
    spec.write_text(spec.read_text().replace(str(tiny_model), str(model)))
    for command in ("plan", "execute"):
        output = engine(command, spec, code=1).output
        assert output.startswith(f"error: model.id: {model / file}: ") and output.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"GGUF", LFS, b"GGUF\x03\0\0\0" + 100 * b"\xff"])
def test_a_damaged_gguf_is_no_crash_of_the_plan(write_spec, tiny_model, tmp_path, content) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(content)
    spec = write_spec()
    spec.write_text(spec.read_text().replace(str(tiny_model), str(model)))
    output = engine("plan", spec, code=1).output
    assert output.startswith(f"error: model.id: {model}: ") and output.count("\n") == 1
    assert content != LFS or "git lfs pull" in output


@pytest.mark.parametrize("kind", ["mask", "graft", "patch", "heads"])
@pytest.mark.parametrize("command", ["plan", "execute"])
def test_modules_trained_in_full_beside_interventions(write_spec, tmp_path, command: str, kind: str) -> None:
    spec = write_spec(f'[[interventions]]\nname = "off"\nkind = "{kind}"\n')
    engine("plan", spec)
    spec.write_text(spec.read_text().replace("[lora]\n", '[lora]\nmodules_to_save = ["norm"]\n'))
    output = engine(command, spec, code=2).output
    assert told(output, f"{spec}:{line_of(spec, 'modules_to_save')}:1", "lora.modules_to_save", '["norm"]')
    assert told(output, '"off"', "apart") and output.count("apart") == 1
    assert not (tmp_path / "store").exists()
    spec.write_text(spec.read_text().replace("steps = 2", "steps = 0"))
    engine("plan", spec)  # there is no adapter


def test_modules_trained_in_full_by_those_that_interventions_take_from(write_spec) -> None:
    spec = write_spec(
        '[factors.whole.levels]\nno = {}\nyes = { lora.modules_to_save = ["lm_head"] }\n'
        '[[interventions]]\nname = "swap"\nkind = "graft"\ncells = { whole = "no" }\n'
        'donor = { whole = "yes" }\n'
    )
    output = engine("plan", spec, code=2).output
    assert f"{spec}:{line_of(spec, 'yes = {')}:" in output and 'found ["lm_head"]' in output
    text = spec.read_text().replace('donor = { whole = "yes" }', 'donor = "base"')
    spec.write_text(text)
    engine("plan", spec)


@pytest.mark.parametrize("command", ["plan", "execute"])
def test_early_stopping_without_validation_examples(write_spec, rated_file, tmp_path, command: str) -> None:
    spec = write_spec()
    text = spec.read_text().replace("steps = 2", "steps = 2\nearly_stopping = 1\nvalidate_every = 1")
    spec.write_text(text)
    engine("plan", spec)
    spec.write_text(text.replace("test = 6", "test = 6\nvalidation_share = 1e-9"))
    output = engine(command, spec, code=2).output
    assert f"{spec}:{line_of(spec, 'early_stopping = ')}:1  train.early_stopping: found 1, but" in output
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("device", ["cuda", "cuda:3"])
def test_a_gpu_that_is_not_here(write_spec, tmp_path, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr(gpus, "DEVICES", tmp_path / "none")
    monkeypatch.setattr(gpus, "DRIVER", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    spec = write_spec()
    spec.write_text(spec.read_text().replace("[model]", f'[model]\ndevice = "{device}"'))
    (told,) = json.loads(engine("plan", spec, "--json").output)["warnings"]
    assert told.startswith(f'model.device: found "{device}", but this machine has no NVIDIA GPU; expected a')
    assert told in " ".join(engine("plan", spec).output.split())
    output = engine("execute", spec, code=2).output
    assert f"{spec}:{line_of(spec, 'device =')}:1  model.device: found" in output
    assert 'expected "auto", "cpu"' in output
    assert not (tmp_path / "store").exists()


def test_the_gpus_that_are_here(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in ("nvidiactl", "nvidia0", "nvidia1"):
        (tmp_path / name).touch()
    for device in ("auto", "cpu", "cuda", "cuda:0", "cuda:1"):
        assert gpus.missing_gpu(device) is None
    assert told(gpus.missing_gpu("cuda:2"), "model.device", '"cuda:2"', "2 NVIDIA GPUs")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "hides all GPUs" in str(gpus.missing_gpu("cuda"))
    (tmp_path / "kfd").touch()  # another maker's, which torch names so as well
    assert gpus.missing_gpu("cuda:2") is None


def test_a_folder_that_holds_no_model_is_not_read(write_spec, tiny_model, tmp_path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with (other / "large.bin").open("wb") as file:
        file.truncate(1 << 40)  # takes no room, and hours to read
    spec = write_spec()
    spec.write_text(spec.read_text().replace(str(tiny_model), str(other)))
    assert "holds no config.json" in engine("plan", spec, code=2).output


def test_data_that_execute_will_refuse_are_told_of_as_it_will(write_spec, tmp_path: Path) -> None:
    """Labels that are none of the spec's, and a column that lacks, once for all cells that read them."""
    spec = write_spec()
    rated = tmp_path / "own.jsonl"
    text = spec.read_text()
    source = next(line for line in text.splitlines() if line.startswith("source = "))
    row = {"context": "c", "response": "r", "why": "w"}
    for lines, said in (
        ([json.dumps({**row, "rating": "good"})] * 3, "own.jsonl … 3 with a label that is none"),
        ([json.dumps(row)] * 3, 'own.jsonl … no column "rating"'),
    ):
        rated.write_text("\n".join(lines))
        spec.write_text(text.replace(source, f'source = "{rated}"'))
        planned, executed = engine("plan", spec), engine("execute", spec, code=1)
        for output in (planned.output, executed.output):
            assert told(output, said), output
        assert planned.output.count("warning: ") == 1


TRAINED = 'lora.modules_to_save=["embed_tokens"]'


@pytest.mark.parametrize("kind", [byte_bpe, sentencepiece_bpe, unigram, wordpiece])
def test_tokens_are_known_as_the_tokenizer_knows_them(
    kind: Any, tiny_model: Path, rated_file: Path, tmp_path: Path
) -> None:
    tokenizer = kind(["bad"])
    tokenizer.add_tokens(["<pause>"])
    folder = tmp_path / "model"
    tokenizer.save_pretrained(folder)
    for file in tiny_model.iterdir():
        if "token" not in file.name:
            shutil.copy(file, folder)
    found = vocabulary(Model(id=str(folder)))
    assert found is not None and all(
        name in found for name in AutoTokenizer.from_pretrained(folder).get_vocab()
    )
    assert "<pausse>" not in found and found.nearest("<pausse>") == "<pause>"
    spec = small_spec(tmp_path, folder, rated_file)
    for key, texts in (("lora.trained_tokens", '["<pause>","<pausse>"]'), ("model.end_token", '"<pausse>"')):
        sets = [part for text in (TRAINED, f"{key}={texts}") for part in ("--set", text)]
        output = engine("plan", spec, *sets, code=2).output
        assert told(output, key, '"<pausse>"', "no token", 'did you mean "<pause>"?')
    assert (
        "no token" not in engine("plan", spec, "--set", TRAINED, "--set", 'model.end_token="<pause>"').output
    )


def test_tokens_of_a_model_that_is_elsewhere_or_never_trained_are_not_asked_for(write_spec) -> None:
    options = ("--set", TRAINED, "--set", 'lora.trained_tokens=["<nope>"]')
    assert told(engine("plan", write_spec(), *options, code=2).output, "lora.trained_tokens", '"<nope>"')
    engine("plan", write_spec(), *options, "--set", "train.steps=0")
    engine("plan", write_spec(), *options, "--set", 'model.id="nobody/nothing"')


def test_data_shows_what_there_is_and_refuses_what_there_is_not(write_spec) -> None:
    spec = write_spec()
    output = engine("data", spec, "--set", "data.test=1000", code=2).output
    assert "split" in output and "data.test: found 1,000, but that split holds 18 examples" in output
    assert "found" not in engine("data", spec).output


def test_all_columns_that_are_not_there_are_told_at_once(write_spec, rated_file: Path) -> None:
    """A column that the data need not have says so, and no column is proposed that has a role already."""
    lines = [json.loads(line) for line in rated_file.read_text().splitlines()]
    other = rated_file.parent / "no-context.jsonl"
    other.write_text(
        "".join(json.dumps({k: v for k, v in row.items() if k != "context"}) + "\n" for row in lines)
    )
    spec = write_spec()
    spec.write_text(spec.read_text().replace(str(rated_file), str(other)).replace('"rating"', '"ratnig"'))
    output = engine("data", spec, code=2).output
    assert told(output, '"context" (data.columns.context; "" where there is none)', '"ratnig"', '"rating"?')
    assert 'mean "response"' not in output


def test_a_factor_s_unknown_key_is_named_with_what_there_is(write_spec) -> None:
    spec = write_spec('[factors.rank]\npath = "lora.rnkk"\nvalues = [4, 8]\n')
    assert told(
        engine("plan", spec, code=2).output,
        "factors.rank.path: unknown key `lora.rnkk`",
        "expected one of",
        "alpha",
    )


def test_a_plan_shows_itself_in_a_line(write_spec, tmp_path: Path) -> None:
    shown = repr(python.plan(write_spec()))
    assert told(shown, "Plan of small", "4 cells", "4 of them not done", str(tmp_path / "store")), shown
    assert len(shown) < 300


@pytest.mark.parametrize("command", ["plan", "execute"])
def test_a_lens_of_another_width_is_refused(write_spec, tiny_model, tmp_path, command) -> None:
    width = json.loads((tiny_model / "config.json").read_text())["hidden_size"]
    files = {
        "wide": {f"block.{n}": torch.ones(width + 2, width + 2) for n in range(2)},
        "stack": {"jacobian": torch.ones(4, width + 1, width + 1)},
        "right": {
            "jacobian": torch.ones(4, width, width),
            "squares": torch.ones(4, width),
            "counts": torch.ones(4),
        },
    }
    for name, tensors in files.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
    (tmp_path / "torn.safetensors").write_bytes((tmp_path / "wide.safetensors").read_bytes()[:20])
    said = {"wide": f"expected matrices of {width} × {width}", "stack": f"[4, {width + 1}", "torn": "header"}
    for name in ("wide", "stack", "torn"):
        file = tmp_path / f"{name}.safetensors"
        spec = write_spec(f'[probe]\nlens = "jacobian"\njacobian = {{ path = "{file}" }}\n')
        output = engine(command, spec, code=2).output
        assert told(output, f"probe.jacobian.path … {said[name]}"), output
    right = tmp_path / "right.safetensors"
    engine("plan", write_spec(f'[probe]\nlens = "jacobian"\njacobian = {{ path = "{right}" }}\n'))
