"""`probe.streams` and `probe.attribution` from the spec to the store, against a plain model in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import command, engine
from matplotlib import pyplot as plt
from small_study import small_spec
from torch import Tensor

import engine as ablation_engine
import store
from engine.data import prepare as data
from engine.planning.plan import make_plan
from engine.planning.probe_passes import probe_size
from engine.stages.probe_layout import probe_family
from engine.text.targets import TargetEncoder
from specs import load_spec, resolve
from specs.tables.probe import Probe
from store.report.probing import layers

STREAMS = ["attention", "mlp", "before_attention", "after_attention"]
MORE = f"""
[probe]
examples = 4
positions = ["prompt_end", "completion_end"]
streams = {STREAMS}
attribution = true
attribution_per_head = true
statistics = ["entropy", "kl_final", "js_final", "max_prob", "watch_mass", "renyi_2"]
top_k = 2
"""
STEPS = "steps = 6\nlr = 0.05"
LABEL, EXPLAINED = "label", "label+explanation"


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rated_file: Path) -> Path:
    folder = tmp_path_factory.mktemp("streams")
    engine("execute", small_spec(folder, tiny_model, rated_file, MORE, train=STEPS))
    return folder / "store"


class Plain:
    """A Llama in float64, each block written out: what it adds, and what its heads add."""

    def __init__(self, model: Any, ids: Tensor, places: list[int]) -> None:
        self.model = model.double()
        inner = model.base_model.model if hasattr(model, "peft_config") else model
        self.head, self.norm = inner.lm_head, inner.model.norm
        self.parts: list[dict[str, Tensor]] = []
        self.heads: list[Tensor] = []  # [positions, H, D] of each block
        caught: dict[str, Tensor] = {}
        handles = []
        for layer in inner.model.layers:
            handles += [
                layer.get_submodule(name).register_forward_hook(self._keep(caught, name))
                for name in ("self_attn", "mlp")
            ]
            handles.append(
                layer.self_attn.o_proj.register_forward_pre_hook(
                    lambda _, args: caught.__setitem__("heads", args[0][0, places])
                )
            )
            handles.append(layer.register_forward_hook(self._block(caught, places)))
        with torch.no_grad():
            self.logits = model(ids).logits[0, places]
        for handle in handles:
            handle.remove()

    def _keep(self, caught: dict[str, Tensor], name: str) -> Any:
        def hook(_: Any, _args: Any, output: Any) -> None:
            caught[name] = output[0] if isinstance(output, tuple) else output

        return hook

    def _block(self, caught: dict[str, Tensor], places: list[int]) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            before = args[0][0, places]
            attention, mlp = (caught[name][0, places] for name in ("self_attn", "mlp"))
            self.parts.append(
                dict(zip(STREAMS, (attention, mlp, before, before + attention), strict=True))
                | {"after": output[0, places]}
            )
            projection, given = module.self_attn.o_proj, caught["heads"]
            with torch.no_grad():
                weight = projection(torch.eye(given.shape[-1], dtype=given.dtype))  # with its adapter
            by_head = given.view(len(given), -1, module.self_attn.head_dim)
            rows = weight.view(by_head.shape[1], module.self_attn.head_dim, -1)
            self.heads.append(torch.einsum("nhk,hkd->nhd", by_head, rows))

        return hook

    def distributions(self, name: str) -> Tensor:
        """Log-probabilities [layers, positions, V] of a stream of all blocks."""
        states = torch.stack([part[name] for part in self.parts])
        with torch.no_grad():
            return torch.log_softmax(self.head(self.norm(states)), -1)

    def attributed(self, part: Tensor, ids: list[int]) -> Tensor:
        """What parts [..., positions, D] add to the logits of ids, at the final stream's RMS."""
        final = self.parts[-1]["after"]
        rms = (final.square().mean(-1, keepdim=True) + self.norm.variance_epsilon).sqrt()
        with torch.no_grad():
            return (self.norm.weight * part / rms) @ self.head.weight[ids].mT


def examples(root: Path, cell: Any, matrix: Any, tokenizer: Any) -> Any:
    plan_levels = matrix.levels(cell.choice)
    writer = TargetEncoder(
        tokenizer=tokenizer,
        prompt=matrix.table("prompt", cell.choice), target=matrix.table("target", cell.choice),
        labels=["1", "2", "3"], dimension="naturalness", seed=plan_levels["seed"],
    )  # fmt: skip
    for number, row in enumerate(data.load(root / "data" / cell.keys["data"], "test", 4)):
        encoded = writer.encode(row)
        ids = encoded.prompt + encoded.completion
        yield number, torch.tensor([ids]), [len(encoded.prompt) - 1, len(ids) - 1]


def test_stored_values_are_those_of_the_plain_model(probed: Path) -> None:
    probe = store.open_store(probed)["small/probe"].to_dataset()
    matrix = resolve(load_spec(probed.parent / "small.toml"))
    plan = make_plan(matrix)
    watch_ids = probe["watch_id"].values.tolist()
    assert probe["stream"].values.tolist() == STREAMS
    assert probe["component"].values.tolist() == ["embedding", "attention", "mlp", "bias"]
    for cell in plan.cells[:3]:
        levels = plan.levels(cell)
        mine = probe.sel(target=levels["target"], seed=levels["seed"]).squeeze()
        model, tokenizer = ablation_engine.load_adapter(probed, levels)
        for number, ids, places in examples(probed, cell, matrix, tokenizer):
            plain, found = Plain(model, ids, places), mine.isel(example=number)
            final = torch.log_softmax(plain.logits, -1)
            blocks = found.sel(layer=slice(1, None))
            for stream in STREAMS:
                log_p = plain.distributions(stream)
                p, q = log_p.exp(), final.exp()
                mean = torch.logaddexp(log_p, final) - np.log(2)
                js = ((p * (log_p - mean)).sum(-1) + (q * (final - mean)).sum(-1)) / 2
                top = log_p.topk(2)
                expected = {
                    "entropy": -(p * log_p).sum(-1),
                    "kl_final": (q * (final - log_p)).sum(-1),
                    "js_final": js,
                    "max_prob": p.amax(-1),
                    "watch_mass": p[..., watch_ids].sum(-1),
                    "renyi_2": -p.square().sum(-1).log(),
                    "watch_logprob": log_p[..., watch_ids],
                    "top_logprob": top.values,
                }
                of_stream = blocks.sel(stream=stream)
                for name, values in expected.items():
                    np.testing.assert_allclose(
                        of_stream[f"stream_{name}"], values, rtol=5e-4, atol=2e-5, err_msg=f"{stream} {name}"
                    )
                ranks = (log_p[..., None, :] > log_p[..., watch_ids][..., None]).sum(-1)
                assert (np.abs(of_stream["stream_watch_rank"].values - ranks.numpy()) <= 1).all()
            parts = {"attention": "attention", "mlp": "mlp"}
            for component, stream in parts.items():
                added = plain.attributed(torch.stack([part[stream] for part in plain.parts]), watch_ids)
                np.testing.assert_allclose(
                    blocks["attribution"].sel(component=component), added, rtol=1e-3, atol=2e-5
                )
            embedding = plain.attributed(plain.parts[0]["before_attention"], watch_ids)
            np.testing.assert_allclose(
                found["attribution"].sel(layer=0, component="embedding"), embedding, rtol=1e-3, atol=2e-5
            )
            heads = plain.attributed(torch.stack(plain.heads).transpose(1, 2), watch_ids)
            np.testing.assert_allclose(
                blocks["head_attribution"].transpose("layer", "head", "position", "watch"),
                heads, rtol=1e-3, atol=2e-5,
            )  # fmt: skip
            total = found["attribution"].sum(["layer", "component"])
            np.testing.assert_allclose(total, plain.logits[:, watch_ids], rtol=1e-3, atol=1e-4)


def test_the_embedding_has_no_streams_and_blocks_no_embedding(probed: Path) -> None:
    probe = store.open_store(probed)["small/probe"].to_dataset()
    for name in probe.data_vars:
        if str(name).startswith("stream_"):
            first = probe[name].sel(layer=0)
            assert (first == -1).all() if first.dtype.kind == "i" else first.isnull().all()
    attributed = probe["attribution"]
    assert attributed.sel(layer=0, component=["attention", "mlp"]).isnull().all()
    assert attributed.sel(component=["embedding", "bias"]).sel(layer=slice(1, None)).isnull().all()
    assert (attributed.sel(layer=0, component="bias") == 0).all(), "a Llama has no biases there"
    assert probe["head_attribution"].sel(layer=0).isnull().all()
    assert probe["nonfinite"].sum() == 0


def test_streams_and_parts_are_analysed_like_any_statistic(probed: Path) -> None:
    study = store.open_store(probed)["small"]
    probe = study["probe"].to_dataset()
    changed = study.ablation.change("stream_entropy", "target", LABEL)
    entropies = probe["stream_entropy"].mean(["seed", "example"]) if "seed" in probe.dims else None
    assert entropies is None and changed["difference"].dims == ("level", "layer", "position", "stream")
    mine = probe["stream_entropy"].astype(float).groupby("target").mean(["cell", "example"])
    np.testing.assert_allclose(
        changed["difference"].sel(level=EXPLAINED),
        (mine.sel(target=EXPLAINED) - mine.sel(target=LABEL)),
        rtol=1e-9, atol=1e-12,
    )  # fmt: skip
    found = study.ablation.means("label_attribution", "target")
    gold = probe["gold"]
    attribution = probe["attribution"].astype(float)
    own = attribution.where(probe["watch"] == gold).max("watch")
    others = attribution.where(probe["watch"] != gold).mean("watch")
    expected = (own - others).groupby("target").mean(["cell", "example"])
    np.testing.assert_allclose(found["mean"].sel(level=LABEL), expected.sel(target=LABEL), rtol=1e-5)
    surprisal = study.ablation.means("stream_label_surprisal", "target").sel(level=LABEL)
    of_gold = -probe["stream_watch_logprob"].where(probe["watch"] == gold).max("watch")
    wanted = of_gold.groupby("target").mean(["cell", "example"]).sel(target=LABEL)
    np.testing.assert_allclose(surprisal["mean"], wanted, rtol=1e-5)
    assert study.ablation.means("stream_entropy_step")["mean"].notnull().any()


def test_the_report_draws_each_stream_and_each_part(probed: Path) -> None:
    study = store.open_store(probed)["small"]
    places = {f"target={level}": place for place, level in enumerate((LABEL, EXPLAINED))}
    shown = {curve["statistic"] for curve in layers(study, places)["curves"]}
    assert {"stream_entropy: attention", "stream_entropy: after_attention"} <= shown
    assert {"label_attribution: mlp", "label_attribution: attention"} <= shown


def test_figures_have_a_line_for_each_stream_and_bars_for_each_component(probed: Path) -> None:
    study = store.open_store(probed)["small"]
    found = study.ablation.means("stream_entropy", "target").sel(position="prompt_end")
    ax = store.plots.means(found.sel(level=LABEL, layer=slice(1, None)))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == STREAMS
    np.testing.assert_array_equal(
        ax.lines[1].get_ydata(), found["mean"].sel(level=LABEL, stream="mlp", layer=slice(1, None))
    )
    with pytest.raises(store.StoreError, match="stream: expected one"):
        store.plots.means(found)
    parts = study.ablation.means("label_attribution", "target").sel(position="prompt_end", level=LABEL)
    ax = store.plots.attribution(parts)
    heights = [[bar.get_height() for bar in bars] for bars in ax.containers]
    np.testing.assert_array_equal(heights, parts["mean"].transpose("component", "layer"))
    np.testing.assert_allclose(ax.lines[-1].get_ydata(), np.cumsum(parts["mean"].sum("component")), rtol=1e-6)
    plt.close("all")


def test_other_statistics_stay_as_they_are(
    probed: Path, tmp_path: Path, tiny_model: Path, rated_file: Path
) -> None:
    more = "\n".join(line for line in MORE.splitlines() if not line.startswith(("streams", "attribution")))
    spec = small_spec(tmp_path, tiny_model, rated_file, more, train=STEPS)
    engine("execute", spec)
    ours, plain = (
        store.open_store(folder)["small/probe"].to_dataset() for folder in (probed, tmp_path / "store")
    )
    for name in plain.data_vars:
        np.testing.assert_array_equal(ours[name], plain[name], err_msg=str(name))
    added = set(ours.variables) - set(plain.variables)
    assert all("stream" in str(name) or "attribution" in str(name) for name in added - {"component", "head"})


def test_the_next_token_may_be_what_is_watched(tmp_path: Path, tiny_model: Path, rated_file: Path) -> None:
    more = """
[probe]
examples = 3
positions = [{ range = "explanation", most = 3 }, "completion_end"]
watch = "next"
streams = ["mlp"]
attribution = true
top_k = 0
"""
    engine("execute", small_spec(tmp_path, tiny_model, rated_file, more), "--only", "seed=0")
    probe = store.open_store(tmp_path / "store")["small/probe"].to_dataset().sel(target=EXPLAINED, seed=0)
    known = (probe["next_id"] != -1).values
    logits = probe["attribution"].sum(["layer", "component"], min_count=1).squeeze("watch").values
    assert known[:, :3].any() and not known[:, 3].any()
    np.testing.assert_array_equal(np.isfinite(logits), known)
    final = probe["logsumexp"].isel(layer=-1) + probe["watch_logprob"].isel(layer=-1, watch=0)
    np.testing.assert_allclose(logits[known], final.values[known], rtol=1e-4, atol=1e-4)
    of_mlp = probe["stream_watch_logprob"].isel(layer=-1, stream=0, watch=0).values
    np.testing.assert_array_equal(np.isfinite(of_mlp), known)


def test_a_probe_without_them_lies_in_the_store_as_ever(tmp_path: Path) -> None:
    rows = [{"id": "a", "label": "1"}]
    plain, asked = Probe(), Probe(streams=["mlp"], attribution=True)
    families = [
        probe_family(rows, [0, 1, 2], {"1": 5}, probe, 4, added=("attention", "mlp"))
        for probe in (plain, asked)
    ]
    names = [{variable.name for variable in family.variables} for family in families]
    assert names[0] < names[1] and not [name for name in names[0] if "stream" in name or "attr" in name]


def test_a_plan_counts_what_they_store_and_keep() -> None:
    plain = probe_size(Probe(), 6, 3, 32, 4, 5)
    streams = probe_size(Probe(streams=["mlp", "attention"]), 6, 3, 32, 4, 5)
    per_row = 4 * 7 + 8 * (5 + 5)  # statistics, watched tokens, top places
    assert streams.stored - plain.stored == 4 * 2 * per_row
    assert streams.rows == plain.rows and streams.within == 2 * plain.rows
    assert streams.kept > plain.kept
    parts = probe_size(Probe(attribution=True), 6, 3, 32, 4, 5)
    assert parts.stored - plain.stored == 4 * 4 * 4 * 5 and parts.within == 0
    heads = probe_size(Probe(attribution=True, attribution_per_head=True), 6, 3, 32, 4, 5)
    assert heads.stored - parts.stored == 4 * 4 * 4 * 5
    assert heads.flops > parts.flops == plain.flops == 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('streams = ["attenton"]', ["probe.streams[0]", '"attenton"', "attention"]),
        ('streams = ["mlp", "mlp"]', ["probe.streams[1]", "twice"]),
        ("attribution = true\nwatch = []", ["probe.watch", "attribution"]),
        ("attribution_per_head = true", ["probe.attribution_per_head", "probe.attribution = true"]),
    ],
)
def test_what_cannot_be_is_told_before_the_run(
    tmp_path: Path, tiny_model: Path, rated_file: Path, more: str, words: list[str]
) -> None:
    _, told = command("plan", small_spec(tmp_path, tiny_model, rated_file, f"[probe]\n{more}\n"))
    assert all(word in told for word in words), told


def test_a_model_whose_blocks_cannot_be_read_is_refused_before_it_is_trained(
    tmp_path: Path, rated_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the plan, which knows the architecture from its files; where it does not, by the cell."""
    from small_study import make_tokenizer
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    folder = tmp_path / "parallel"
    config = GPTNeoXConfig(
        vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=512, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    GPTNeoXForCausalLM(config).save_pretrained(folder)
    make_tokenizer(folder)
    spec = small_spec(tmp_path, folder, rated_file, '[probe]\nstreams = ["after_attention"]\n')
    code, told = command("plan", spec)
    line = 1 + spec.read_text().splitlines().index('streams = ["after_attention"]')
    assert code == 2 and f'{spec}:{line}:1  probe.streams: found "after_attention"' in told
    monkeypatch.setattr("engine.planning.checks._cards", lambda _plan: {})
    code, told = command("execute", spec, "--only", "seed=0", "--only", "target=label")
    assert code == 1 and told.index("probe.streams: found 'after_attention'") < told.index(": train ")
