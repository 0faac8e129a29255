"""Ranges of watch positions and the text's own next tokens, held against plain models in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import command, engine
from small_study import small_spec

import engine as ablation_engine
import store
from engine.data import prepare as data
from engine.planning.plan import make_plan
from engine.planning.probe_passes import examples_at_once, probe_size
from engine.planning.stage_keys import Keys
from engine.text.targets import TargetEncoder
from specs import load_spec, resolve
from specs.tables.probe import PositionRange, Probe

PLACES = """
[probe]
positions = [
  "prompt_end", "completion_end", { range = "explanation", every = 2, most = 5 },
  { range = "prompt", most = 3 },
]
watch = "next"
heads = true
"""
NAMES = [
    "prompt_end", "completion_end", *(f"explanation[{place}]" for place in (0, 2, 4, 6, 8)),
    *(f"prompt[{place}]" for place in range(3)),
]  # fmt: skip
EXPLAINED = "label+explanation"


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rated_file: Path) -> Path:
    folder = tmp_path_factory.mktemp("positions")
    engine(
        "execute", small_spec(folder, tiny_model, rated_file, PLACES, train="steps = 0"), "--only", "seed=0"
    )
    return folder / "store"


def test_next_tokens_are_those_of_the_text_and_of_the_plain_model(probed: Path) -> None:
    probe = store.open_store(probed)["small/probe"].to_dataset()
    assert probe["position"].values.tolist() == NAMES and probe["watch"].values.tolist() == ["next"]
    assert "watch_id" not in probe.variables
    matrix = resolve(load_spec(probed.parent / "small.toml"))
    plan = make_plan(matrix)
    held = 0
    for cell in plan.cells[::2]:
        levels = plan.levels(cell)
        mine = probe.sel(target=levels["target"], seed=levels["seed"])
        model, tokenizer = ablation_engine.load_adapter(probed, levels)
        writer = TargetEncoder(
            tokenizer=tokenizer,
            prompt=matrix.table("prompt", cell.choice), target=matrix.table("target", cell.choice),
            labels=["1", "2", "3"], dimension="naturalness", seed=0,
        )  # fmt: skip
        model = model.double()
        for number, row in enumerate(data.load(probed / "data" / cell.keys["data"], "test", 6)):
            encoded = writer.encode(row)
            ids = encoded.prompt + encoded.completion
            explanation = writer.explanation_places(row)
            if levels["target"] == EXPLAINED:
                assert tokenizer.decode([ids[place] for place in explanation]).strip() == row["explanation"]
            else:
                assert not explanation
            places = [len(encoded.prompt) - 1, len(ids) - 1, *explanation[::2][:5]]
            places += [None] * (7 - len(places)) + list(range(3))
            with torch.no_grad():
                *hidden, last = model.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
                states = torch.stack([*map(model.model.norm, hidden), last])[:, 0]
                logp = torch.log_softmax(model.lm_head(states), -1)
            for place, at in enumerate(places):
                found = mine.isel(example=number, position=place)
                following = ids[at + 1] if at is not None and at + 1 < len(ids) else -1
                assert found["next_id"] == following
                if at is None:
                    assert found["entropy"].isnull().all() and found["head_entropy"].isnull().all()
                    assert (found["top_id"] == -1).all()
                else:
                    entropy = -(logp[:, at].exp() * logp[:, at]).sum(-1)
                    np.testing.assert_allclose(found["entropy"], entropy, atol=1e-4)
                if following < 0:
                    assert found["watch_logprob"].isnull().all() and (found["watch_rank"] == -1).all()
                    assert found["watch_mass"].isnull().all()
                    continue
                own = logp[:, at, following]
                np.testing.assert_allclose(found["watch_logprob"].squeeze("watch"), own, atol=1e-4)
                np.testing.assert_allclose(found["watch_mass"], own.exp(), atol=1e-5)
                rank = (logp[:, at] > own[:, None] + 1e-5).sum(-1)
                assert (np.abs(found["watch_rank"].squeeze("watch") - rank.numpy()) <= 1).all()
                held += 1
    assert held > 40
    assert (probe["nonfinite"] == 0).all()


def test_more_positions_take_no_more_memory_and_change_nothing(
    probed: Path, tmp_path: Path, tiny_model: Path, rated_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.planning.probe_passes.KEPT_BYTES", 1)
    assert examples_at_once(Probe(positions=["explanation"]), 4, 32) == 1
    engine(
        "execute", small_spec(tmp_path, tiny_model, rated_file, PLACES, train="steps = 0"), "--only", "seed=0"
    )
    ours, others = (
        store.open_store(folder)["small/probe"].to_dataset() for folder in (probed, tmp_path / "store")
    )
    for name in ours.data_vars:
        np.testing.assert_allclose(ours[name], others[name], atol=2e-5, err_msg=str(name))


def test_a_plan_counts_every_position() -> None:
    wide = Probe(positions=["label", PositionRange(range="prompt", every=3, most=8)], watch="next")
    assert len(wide.position_names) == 9 and wide.position_names[-1] == "prompt[21]"
    size, one = (probe_size(probe, 6, 3, 32, 4, 5) for probe in (wide, Probe(watch="next")))
    assert (size.rows, size.stored, size.kept) == tuple(9 * part for part in (one.rows, one.stored, one.kept))


def test_a_range_has_one_key_however_it_is_written(
    tmp_path: Path, tiny_model: Path, rated_file: Path
) -> None:
    spec = small_spec(tmp_path, tiny_model, rated_file)
    keys = []
    for positions in (
        '["prompt"]',
        '[{ range = "prompt" }]',
        '[{ range = "prompt", every = 2 }]',
        '["label"]',
    ):
        matrix = resolve(load_spec(spec, [f"probe.positions={positions}"]))
        keys.append(Keys(matrix).of(matrix.cells[0])["probe"])
    assert keys[0] == keys[1] and len(set(keys)) == 3


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('positions = ["explanaton"]', ["probe.positions[0]", '"explanation"']),
        ('positions = [{ range = "explanations" }]', ["probe.positions[0].range", "explanation"]),
        ('positions = [{ range = "prompt", evry = 2 }]', ["probe.positions[0].evry", "every"]),
        (
            'positions = ["label", "prompt", { range = "prompt", every = 2 }]',
            ["probe.positions[2]", "prompt[0]"],
        ),
    ],
)
def test_wrong_ranges_are_named(
    tmp_path: Path, tiny_model: Path, rated_file: Path, more: str, words: list[str]
) -> None:
    _, told = command("plan", small_spec(tmp_path, tiny_model, rated_file, f"[probe]\n{more}\n"))
    assert all(word in told for word in words), told
