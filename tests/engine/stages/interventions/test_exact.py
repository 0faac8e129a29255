"""Interventions, where they must be exact: on every architecture they equal the model that they amount to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facts import facts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_study import writer
from two_trainings import EXAMPLES, Study

from engine.errors import EngineError, UsageError
from engine.models.base_model import as_it_was
from engine.models.generation_batches import GenerationBatches
from engine.models.lens import find_lens
from engine.planning.changes import PARTS, Change, Entry, ModelShape
from engine.planning.run_order import shared, steps_of, turns, whole_runs
from engine.planning.sweeps import expand
from engine.progress import StopRequest, silent
from engine.stages.adapter_layout import arrangement
from engine.stages.training.files import load_adapter
from kernels import lens_statistics
from specs.tables.interventions import Intervention

# One of each way to build a block: rotary, sliding windows, soft-caps, fused or biased projections, experts.
ARCHITECTURES = ["llama", "mistral", "qwen3", "gemma 2, soft-capped", "gpt2", "gpt-neox", "opt", "mixtral"]


@pytest.fixture(params=ARCHITECTURES)
def study(request: Any, tmp_path: Path, tokenizer: Any) -> Study:
    return Study(request.param, tmp_path, tokenizer)


def mask(*layers: int, **options: Any) -> Change:
    return Change(f"mask {layers} {options}", "mask", "mask", layers, **options)


def graft(*layers: int, **options: Any) -> Change:
    return Change(f"graft {layers} {options}", "graft", "graft", layers, source="donor", **options)


def patch(*layers: int, source: str = "donor", **options: Any) -> Change:
    return Change(f"patch {layers} {source}", "patch", "patch", layers, source=source, **options)


def assert_same(found: dict[str, np.ndarray], place: int, expected: dict[str, np.ndarray]) -> None:
    for name in ("label_logprob", "entropy"):
        np.testing.assert_allclose(found[name][:, place], expected[name][:, 0], rtol=1e-4, atol=2e-4)


def test_what_amounts_to_a_whole_model_equals_it(study: Study) -> None:
    changes = [
        Change("none", "none", "none"),  # the adapted model
        mask(1, 2, 3, alpha=1.0),  # nothing taken away
        patch(2, source="default"),  # its own stream put into it
        mask(1, 2, 3),  # the base model …
        mask(1, 2, 3, alpha=1e-12),
        graft(1, 2, 3),  # the donor …
        Change("all of donor", "source", "source", source="donor"),
        patch(3),  # … which is put in at the end here
    ]
    with study.arranged() as arranged:
        found = study.run(arranged, changes)
    own, base, donor = (study.plain(study.model(which)) for which in (study.own, None, study.donor))
    assert np.abs(own["entropy"] - base["entropy"]).max() > 1e-2  # the three differ in what is compared
    assert np.abs(own["entropy"] - donor["entropy"]).max() > 1e-2
    found["entropy"][:, 7, :3] = donor["entropy"][:, 0, :3]  # below, the patched model is still its own
    for place, expected in enumerate([own, own, own, base, base, donor, donor, donor]):
        assert_same(found, place, expected)


def test_parts_of_layers_equal_a_model_with_those_weights_alone(study: Study) -> None:
    changes = [mask(2, parts=frozenset({"attention"})), mask(2, 3), mask(1, 3), mask(2, alpha=0.5)]
    with study.arranged() as arranged:
        found = study.run(arranged, changes)
        sites = arranged.sites
    assert {part for _, part, _ in sites} == PARTS
    for place, change in enumerate(changes):
        model = study.model(study.own)
        with arrangement(model, {}) as arranged:
            for layer, part, module in arranged.sites:
                if layer in change.layers and part in change.parts:
                    module.lora_B["default"].weight.data.mul_(change.alpha)
        assert_same(found, place, study.plain(model))


def test_a_graft_below_equals_the_patch_of_all_positions_there(study: Study) -> None:
    changes = [graft(1), patch(1), graft(1, 2), patch(2), graft(2, 3), graft(3)]
    with study.arranged() as arranged:
        found = study.run(arranged, changes)
    for name in ("label_logprob", "entropy"):
        below = (..., slice(None))
        for one, other in ((0, 1), (2, 3)):
            ours, theirs = found[name][:, one][below], found[name][:, other][below]
            if name == "entropy":  # below the patch the model is still its own
                ours, theirs = ours[:, changes[one].layers[-1] :], theirs[:, changes[one].layers[-1] :]
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-4)


LAYERS = st.sets(st.integers(1, 3), min_size=1).map(lambda layers: tuple(sorted(layers)))
CHANGES = st.lists(
    st.one_of(
        st.builds(lambda at, alpha: mask(*at, alpha=alpha), LAYERS, st.sampled_from([0.0, 0.5, 1.0])),
        st.builds(lambda at: mask(*at, parts=frozenset({"mlp"})), LAYERS),
        st.builds(lambda at: graft(*at), LAYERS),
        st.builds(
            lambda at, source, positions: patch(*at, source=source, positions=positions),
            LAYERS,
            st.sampled_from(["", "donor"]),
            st.sampled_from([None, (-1,), (-2, -1)]),
        ),
        st.builds(lambda at, head: Change("h", "h", "heads", at, heads=(head,)), LAYERS, st.integers(0, 1)),
        st.just(Change("none", "none", "none")),
        st.sampled_from([Change("all", "source", "source", source=name) for name in ("", "donor")]),
    ),
    min_size=1,
    max_size=12,
)


@given(changes=CHANGES)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_change_is_the_same_in_any_company(llama: Study, changes: list[Change]) -> None:
    """Whatever else is in the sweep, and so from whichever run it goes on."""
    with llama.arranged() as arranged:
        together = llama.run(arranged, changes)
        for place, change in enumerate(changes):
            assert_same(together, place, llama.run(arranged, [change]))


@given(changes=CHANGES)
def test_no_layer_runs_again_that_has_run_before(changes: list[Change]) -> None:
    """Each turn goes on as late as any earlier run would let it, and what it goes on from has been kept."""
    found = turns(changes, "default", 3)
    assert sorted(turn.place for turn in found) == list(range(len(changes)))
    wholes = [
        steps_of(Change("", "", "source", source=run.adapter), "", 3)
        for run in whole_runs(changes, "default")
    ]
    for number, turn in enumerate(found):
        before = [*wholes, *(former.steps for former in found[:number])]
        assert turn.start == max(shared(steps, turn.steps) for steps in before)
        assert turn.past is not None or turn.start <= found[number - 1].keep


def test_heads_are_replaced_where_they_enter_the_projection(study: Study) -> None:
    with study.arranged() as arranged:
        count = find_lens(arranged.model).heads
        changes = [
            Change("h", "h", "heads", (2,), heads=(1, 3)),
            Change("m", "m", "heads", (3,), heads=(0,), ablation="mean"),
        ]
        found = study.run(arranged, changes)
    model = study.model(study.own)
    lens = find_lens(model)

    def columns(layer: int, heads: tuple[int, ...]) -> tuple[Any, list[int]]:
        from engine.models.head_outputs import output_projection

        projection = output_projection(lens, layer)
        width = projection.lora_A["default"].in_features // count
        return projection, [head * width + i for head in heads for i in range(width)]

    projection, gone = columns(2, (1, 3))
    base = projection.base_layer.weight.data
    kept_base, kept = base.clone(), projection.lora_A["default"].weight.data.clone()
    by_input = base if study.name == "gpt2" else base.T  # GPT-2 keeps its matrices transposed
    by_input[gone] = 0
    projection.lora_A["default"].weight.data[:, gone] = 0
    assert_same(found, 0, study.plain(model))
    base.copy_(kept_base)
    projection.lora_A["default"].weight.data.copy_(kept)

    projection, replaced = columns(3, (0,))
    written: list[torch.Tensor] = []
    hook = projection.register_forward_pre_hook(lambda _, args: written.append(args[0]))
    text = writer(study.tokenizer)
    for row in EXAMPLES:
        ids = text.encode_spellings(row)[0]
        with torch.no_grad():
            lens.last_hidden(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long))
    hook.remove()
    mean = torch.cat([w[0] for w in written]).double().mean(dim=0).float()

    def put_in(_: Any, args: Any) -> Any:
        new = args[0].clone()
        new[..., replaced] = mean[replaced]
        return (new,)

    projection.register_forward_pre_hook(put_in)
    assert_same(found, 1, study.plain(model))


def test_nothing_is_left_on_the_model(study: Study) -> None:
    base = study.model(None)
    model = load_adapter(base, study.own)
    before = study.plain(model)
    with arrangement(model, {"donor": study.donor}) as arranged:
        changes = [graft(1), patch(2, 3), mask(2), Change("h", "h", "heads", (2,), heads=(1,))]
        study.run(arranged, changes)
    assert_same(study.plain(model), 0, before)
    assert set(model.peft_config) == {"default"}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not any("donor" in name for name, _ in model.named_modules())
    own = study.model(None)
    with as_it_was(own):
        load_adapter(own, study.own)
    assert_same(study.plain(own), 0, study.plain(study.model(None)))


@pytest.fixture
def llama(tmp_path: Path, tokenizer: Any) -> Study:
    return Study("llama", tmp_path, tokenizer)


def test_an_untrained_model_can_take_from_a_donor(llama: Study) -> None:
    model = llama.model(None)
    before = llama.plain(model)
    with arrangement(model, {"donor": llama.donor}) as arranged:
        found = llama.run(arranged, [graft(1, 2, 3), Change("none", "none", "none")])
    assert_same(found, 0, llama.plain(llama.model(llama.donor)))
    assert_same(found, 1, before)
    assert_same(llama.plain(model), 0, before)


def test_positions_of_a_patch_are_counted_from_the_prompts_end(llama: Study) -> None:
    changes = [patch(2, positions=(-1,)), patch(2, positions=tuple(range(-40, 0))), patch(2)]
    with llama.arranged() as arranged:
        found = llama.run(arranged, changes)
    alone, all_named, everywhere = np.moveaxis(found["label_logprob"], 1, 0)
    np.testing.assert_allclose(all_named, everywhere, atol=1e-6)
    assert np.abs(alone - everywhere).max() > 1e-3
    # At the last layer the label's position alone decides.
    with llama.arranged() as arranged:
        found = llama.run(arranged, [patch(3, positions=(-1,)), patch(3)])
    np.testing.assert_allclose(found["label_logprob"][:, 0], found["label_logprob"][:, 1], atol=1e-6)


def test_labels_of_several_tokens_are_scored_like_the_evaluation(llama: Study) -> None:
    from engine.stages.evaluate import evaluate

    labels = ["good", "bad words", "topic"]
    with llama.arranged() as arranged:
        experiment = llama.experiment(arranged, labels=labels)
        rows = [row | {"label": "good"} for row in EXAMPLES]
        text = experiment.writer
        assert max(len(ids) for ids in text.encode_labels(rows[0])[1]) > 1
        (whole, rest) = experiment.run(rows, [mask(2), Change("none", "none", "none")], silent, StopRequest())
        found = np.concatenate([whole["label_logprob"], rest["label_logprob"]])[:, 1]
        predicted = np.concatenate([whole["prediction"], rest["prediction"]])[:, 1]
        expected = evaluate(
            arranged.model, text, rows, experiment.evaluate, GenerationBatches(4), silent, StopRequest()
        )
    np.testing.assert_allclose(found, expected["label_logprob"], atol=1e-5)
    assert list(predicted) == list(expected["prediction"])


def test_entropies_are_those_of_the_reference(llama: Study) -> None:
    with llama.arranged() as arranged:
        found = llama.run(arranged, [mask(2)])["entropy"][:, 0]
    model = llama.model(llama.own)
    with (
        arrangement(model, {}) as arranged,
        arranged.changed(steps_of(mask(2), arranged.trained, 3)),
        torch.no_grad(),
    ):
        lens, text = find_lens(model), writer(llama.tokenizer)
        for row, own in zip(EXAMPLES, found, strict=True):
            ids = text.encode_spellings(row)[0]
            with lens.watching([0, 1, 2, 3], torch.tensor([[len(ids) - 1]])) as caught:
                lens.last_hidden(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long))
            rows = lens.norm(torch.cat([states[0] for states in caught]))
            exact = lens_statistics(rows, lens.unembedding, top_k=0, backend="reference").entropy
            np.testing.assert_allclose(own, exact, rtol=1e-4)


def test_it_goes_on_behind_the_batches_that_are_there(llama: Study) -> None:
    changes = [mask(1), Change("m", "m", "heads", (1,), heads=(0,), ablation="mean")]
    with llama.arranged() as arranged:
        whole = llama.run(arranged, changes)
        (rest,) = llama.experiment(arranged).run(EXAMPLES, changes, silent, StopRequest(), start=3)
    np.testing.assert_array_equal(rest["label_logprob"], whole["label_logprob"][3:])


def test_an_adapter_outside_the_layers_is_no_layers_doing(tmp_path: Path, tokenizer: Any) -> None:
    study = Study("llama", tmp_path, tokenizer, modules_to_save=["lm_head"])
    with (
        pytest.raises(UsageError, match=facts("lm_head", "LoRA")),
        study.arranged(),
    ):
        pass


def test_a_model_of_more_than_one_stream_is_refused(llama: Study) -> None:
    model = llama.model(None)
    memory: dict[str, torch.Tensor] = {}
    first, _, last = model.model.layers
    first.mlp.register_forward_hook(lambda _, _args, output: memory.update(first=output))
    last.register_forward_hook(lambda _, _args, output: output + memory.pop("first", 0.0))
    with (
        arrangement(model, {"donor": llama.donor}) as arranged,
        pytest.raises(EngineError, match=facts("LlamaModel", "layer")),
    ):
        llama.run(arranged, [graft(2)])


def sweep(**options: Any) -> list[Change]:
    settings = Intervention(name="x", kind=options.pop("kind", "mask"), **options)
    return expand([Entry(settings, "", "base")], ModelShape(layers=6, heads=2))


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ({}, [(1,), (2,), (3,), (4,), (5,), (6,)]),
        ({"width": [2], "stride": 2}, [(1, 2), (3, 4), (5, 6)]),
        ({"width": [5, 6]}, [(1, 2, 3, 4, 5), (2, 3, 4, 5, 6), (1, 2, 3, 4, 5, 6)]),
        ({"sweep": "below", "stride": 3}, [(1,), (1, 2, 3, 4)]),
        ({"sweep": "above", "stride": 3}, [(1, 2, 3, 4, 5, 6), (4, 5, 6)]),
        ({"sweep": "together", "layers": [-1, 2]}, [(2, 6)]),
        ({"layers": [5, 1, 3], "width": [2]}, [(1, 3), (3, 5)]),
        ({"kind": "heads", "layers": [4]}, [(4,), (4,)]),
    ],
)
def test_sweeps(options: dict[str, Any], layers: list[tuple[int, ...]]) -> None:
    changes = sweep(**options)
    assert [change.layers for change in changes if change.entry == "x"] == layers
    assert len({change.name for change in changes}) == len(changes)
    assert changes[0].kind == "none"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": [7]}, r"x\.layers.*7.*1 to 6.*-6 to -1"),
        ({"layers": [1, 2], "width": [3]}, r"x\.width.*3.*2 layers"),
        ({"kind": "heads", "heads": [2]}, "x.heads: found 2; expected 0 to 1"),
    ],
)
def test_what_a_model_lacks_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        sweep(**options)
