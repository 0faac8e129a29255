"""What attention and MLP of a layer write, on every architecture: it adds up, or the layer is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facts import facts
from small_study import writer
from tiny_models import MODELS, adapt, build
from two_trainings import EXAMPLES, Study

from engine.errors import EngineError
from engine.models.block_streams import watching_blocks
from engine.models.head_outputs import watching_head_outputs
from engine.models.lens import find_lens
from engine.planning.changes import Change
from engine.stages.interventions.layer_parts import find_parts

# Norms behind the sum, three terms, a sum within the MLP, layers without attention.
APART = {
    "opt, projected, normed after", "bart", "falcon-h1", "mpt, a scale that it does not read",
    "recurrent gemma",
}  # fmt: skip
IDS = torch.tensor([[5, 11, 7, 23, 9], [3, 4, 5, 6, 7]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_what_is_found_is_what_a_layer_adds(name: str, dtype: torch.dtype) -> None:
    kind, options = MODELS[name]
    model: Any = adapt(build(kind, options)).to(dtype)
    lens = find_lens(model)
    count = len(lens.layers)
    wanted = [(part, layer) for layer in range(1, count + 1) for part in ("attention", "mlp")]
    everywhere = torch.arange(IDS.shape[1]).expand(IDS.shape)
    with torch.inference_mode():
        if name in APART:
            with pytest.raises(EngineError, match=facts("layer 1", "residual")):
                find_parts(lens, wanted, IDS[:1])
            return
        parts = find_parts(lens, wanted, IDS[:1])
        with lens.watching(list(range(count + 1)), everywhere) as streams, parts.kept(wanted, 2) as outputs:
            lens.last_hidden(IDS)
        for layer in range(1, count + 1):
            added = outputs["attention", layer].double() + outputs["mlp", layer].double()
            total = streams[layer - 1].double() + parts.scales[layer] * added
            largest = streams[layer].double().abs().max().item()
            torch.testing.assert_close(
                total, streams[layer].double(), atol=8 * torch.finfo(dtype).eps * largest, rtol=0
            )
            assert added.abs().max() > 0
        # The same as what the probe reads of blocks by another way: from sum to sum.
        with watching_blocks(lens, range(1, count + 1), everywhere, ["attention", "mlp"]) as blocks:
            lens.last_hidden(IDS)
        for layer, block in enumerate(blocks, start=1):
            for place, part in enumerate(("attention", "mlp")):
                own = parts.scales[layer] * outputs[part, layer].double()
                error = (own - block[:, :, place].double()).abs().max()
                assert error <= 8 * torch.finfo(dtype).eps * own.abs().max()
        if lens.heads:  # and what heads give, before they are mixed
            heads = [("heads", layer) for layer in range(1, count + 1)]
            with (
                find_parts(lens, heads, IDS[:1]).kept(heads, 2) as kept,
                watching_head_outputs(lens, range(1, count + 1), everywhere) as watched,
            ):
                lens.last_hidden(IDS)
            for layer, given in enumerate(watched, start=1):
                torch.testing.assert_close(kept["heads", layer], given, atol=0, rtol=0)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


# What adds in place (Falcon), behind a norm of its own (Gemma 2), and gives more than one thing (Mixtral).
WRITERS = {
    "falcon": {"attention": "self_attention", "mlp": "mlp"},
    "gemma 2, soft-capped": {"attention": "post_attention_layernorm", "mlp": "post_feedforward_layernorm"},
    "mixtral": {"attention": "self_attn", "mlp": "mlp"},
}


@pytest.mark.parametrize("name", [name for name in WRITERS if name in MODELS])
def test_what_is_put_in_is_the_whole_output_of_those_modules(
    name: str, tmp_path: Path, tokenizer: Any
) -> None:
    study, text = Study(name, tmp_path, tokenizer), writer(tokenizer)
    changes = [
        Change(f"{stream} {again}", "patch", "patch", (2,), source="donor", stream=stream)
        for again in range(2)
        for stream in ("attention", "mlp")
    ]
    with study.arranged() as arranged:
        found = study.run(arranged, [*changes, Change("none", "none", "none")])["label_logprob"]
    np.testing.assert_array_equal(found[:, :2], found[:, 2:4])  # the first has left what is put in as it was
    own, donor = study.model(study.own), study.model(study.donor)
    for place, stream in enumerate(("attention", "mlp")):
        sites = [getattr(find_lens(model).layers[1], WRITERS[name][stream]) for model in (own, donor)]
        for number, row in enumerate(EXAMPLES):
            prompt, labels = text.encode_spellings(row)
            given: list[torch.Tensor] = []

            def keep(_: Any, _args: Any, output: Any, given: list[torch.Tensor] = given) -> None:
                given.append((output[0] if isinstance(output, tuple) else output).clone())

            def put(_: Any, _args: Any, output: Any, given: list[torch.Tensor] = given) -> Any:
                return (given[0], *output[1:]) if isinstance(output, tuple) else given[0]

            logits = []
            for model, site, hook in ((donor, sites[1], keep), (own, sites[0], put)):
                handle = site.register_forward_hook(hook)
                with torch.no_grad():
                    logits.append(model(input_ids=torch.tensor([prompt])).logits[0, -1])
                handle.remove()
            expected = logits[-1].log_softmax(-1)[[spellings[0][0] for spellings in labels]]
            np.testing.assert_allclose(found[number, place], expected.numpy(), atol=1e-4)
    assert np.abs(found[:, :2] - found[:, [4]]).max() > 1e-3
