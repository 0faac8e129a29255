"""Patches, ablations and paths against a plain float64 computation of each model's layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path as Folder
from typing import Any

import numpy as np
import pytest
import torch
from small_study import writer
from torch import Tensor
from two_trainings import EXAMPLES, LABELS, Study

from engine.models.lens import find_lens
from engine.planning.changes import Change, Path
from engine.progress import StopRequest, silent
from engine.stages.adapter_layout import arrangement
from engine.stages.interventions.inputs import Input, others
from engine.stages.interventions.intervene import InterventionRun
from specs.tables.evaluate import Evaluate
from specs.tables.probe import Probe
from specs.tables.target import Target

NAMES = {  # of a layer's parts: norm and attention, norm and MLP, the heads' projection
    "llama": ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp", "o_proj"),
    "gpt2": ("ln_1", "attn", "ln_2", "mlp", "c_proj"),
    "gpt-neox": ("input_layernorm", "attention", "post_attention_layernorm", "mlp", "dense"),
}
HEADS, LAYERS = 4, 3
EXPLAINED = [
    row | {"explanation": "words are in order " * (1 + number % 2)} for number, row in enumerate(EXAMPLES)
]
BEFORE = Target(content="label+explanation", placement="before")

Found = dict[tuple[str, int], Tensor]  # a part and its layer → [1, T, width]
Pairs = Sequence[tuple[int, int]]  # a token, and that of the other input which stands for it


def as_it_comes(_part: str, _layer: int, output: Tensor) -> Tensor:
    return output


class Plain:
    """A model's layers, run one after the other: residual streams, outputs, heads before their projection."""

    def __init__(self, model: Any, name: str) -> None:
        self.lens, self.name = find_lens(model), name
        self.parallel = name == "gpt-neox"

    def part(self, layer: int, place: int) -> Any:
        return getattr(self.lens.layers[layer - 1], NAMES[self.name][place])

    def projected(self, layer: int, heads: Tensor) -> Tensor:
        return getattr(self.part(layer, 1), NAMES[self.name][4])(heads)

    def embedded(self, ids: list[int]) -> Tensor:
        caught: list[Tensor] = []
        hook = self.lens.layers[0].register_forward_pre_hook(
            lambda _, args, kwargs: caught.append(args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
        self.lens.last_hidden(torch.tensor([ids]))
        hook.remove()
        return caught[0]

    def attend(self, layer: int, stream: Tensor) -> Tensor:
        """The heads' outputs on a stream."""
        seen: list[Tensor] = []
        projection = getattr(self.part(layer, 1), NAMES[self.name][4])
        hook = projection.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        length = stream.shape[1]
        mask = torch.full((length, length), -torch.inf, dtype=stream.dtype).triu(1)[None, None]
        options: dict[str, Any] = {"attention_mask": mask}
        if self.name != "gpt2":
            options["position_embeddings"] = self.lens.decoder.rotary_emb(stream, torch.arange(length)[None])
        self.part(layer, 1)(self.part(layer, 0)(stream), **options)
        hook.remove()
        return seen[0]

    def mlp(self, layer: int, before: Tensor, middle: Tensor) -> Tensor:
        return self.part(layer, 3)(self.part(layer, 2)(before if self.parallel else middle))

    def run(
        self, stream: Tensor, put: Callable[[str, int, Tensor], Tensor] = as_it_comes, above: int = 0
    ) -> Found:
        """All streams and outputs above a layer; `put` may change each as it comes."""
        found = {("residual", above): stream}
        for layer in range(above + 1, LAYERS + 1):
            heads = found["heads", layer] = put("heads", layer, self.attend(layer, stream))
            attention = found["attention", layer] = put("attention", layer, self.projected(layer, heads))
            mlp = self.mlp(layer, stream, stream + attention)
            mlp = found["mlp", layer] = put("mlp", layer, mlp)
            stream = found["residual", layer] = put("residual", layer, stream + attention + mlp)
        return found

    def logprobs(self, found: Found, ids: list[int], place: int) -> list[float]:
        logits = self.lens.norm(found["residual", LAYERS][0, place]) @ self.lens.unembedding.weight.T
        return logits.log_softmax(-1)[ids].tolist()


def mixed(own: Tensor, other: Tensor, pairs: Pairs, heads: Sequence[int] | None = None) -> Tensor:
    """One run's output with some of another's, of some heads alone where they are given."""
    output, width = own.clone(), own.shape[-1] // HEADS
    for place, stand_in in pairs:
        for head in range(HEADS) if heads is None else heads:
            columns = slice(head * width, (head + 1) * width)
            output[0, place, columns] = other[0, stand_in, columns]
    return output


def along_path(plain: Plain, own: Found, other: Found, pairs: Pairs, path: Path) -> Found:
    """The definition: the receiver reads its stream plus what the senders would add; all else follows it."""
    brought: dict[int, Tensor] = {}
    for layer in path.layers:
        part, heads = (path.sender, layer), path.heads if path.sender == "heads" else None
        new = mixed(own[part], other[part], pairs, heads)
        if heads is not None:
            brought[layer] = plain.projected(layer, new) - plain.projected(layer, own[part])
        else:
            brought[layer] = new - own[part]
    if path.receiver == "final":
        return {("residual", LAYERS): own["residual", LAYERS] + sum(brought.values())}
    receiver, before = path.layer, own["residual", path.layer - 1]
    below = before + sum((of for layer, of in brought.items() if layer < receiver), torch.zeros(()))
    if path.receiver == "mlp":
        middle = below + own["attention", receiver] + brought.get(receiver, torch.zeros(()))
        new = plain.mlp(receiver, below, middle)
    elif path.receiver == "attention":
        new = plain.projected(receiver, plain.attend(receiver, below))
    else:
        everywhere = [(place, place) for place in range(before.shape[1])]
        new = mixed(own["heads", receiver], plain.attend(receiver, below), everywhere, path.receiver_heads)
    end = (path.receiver, receiver)
    return plain.run(
        before, lambda part, layer, output: new if (part, layer) == end else output, receiver - 1
    )


class Pair:
    """A model and its donor in float64, and the examples that changes are made on."""

    def __init__(self, name: str, folder: Folder, tokenizer: Any, target: Target | None = None) -> None:
        self.study, self.name = Study(name, folder, tokenizer), name
        self.text = writer(tokenizer, target=target or Target())
        drawn = {read: others(EXPLAINED, read, 0) for read in ("other example", "other label")}
        self.inputs = {read: Input(rows, self.text) for read, rows in drawn.items()}
        own, donor = (Plain(self.model(home), name) for home in (self.study.own, self.study.donor))
        self.plain = {"default": own, "donor": donor}
        self.questions: dict[tuple[int, str], Any] = {}
        self.runs: dict[tuple[int, str, str], Found] = {}

    def model(self, home: Any) -> Any:
        model = self.study.model(home).double()
        model.set_attn_implementation("eager")
        for name, weight in model.named_parameters():
            if self.name == "gpt2" and ".attn." in name and name.endswith("base_layer.weight"):
                weight.data.mul_(6)  # as drawn, other tokens hardly matter
        return model

    def prompt(self, number: int, read: str = "same") -> list[int]:
        return self.question(number, read)[0]

    def question(self, number: int, read: str = "same") -> Any:
        if (number, read) not in self.questions:
            row = EXPLAINED[number] if read == "same" else self.inputs[read].rows[number]
            self.questions[number, read] = self.text.encode_spellings(row)
        return self.questions[number, read]

    def run(self, number: int, source: str = "default", read: str = "same") -> Found:
        """A whole run of one of the two models on an example, or on what stands for it."""
        if (number, source, read) not in self.runs:
            plain = self.plain[source]
            self.runs[number, source, read] = plain.run(plain.embedded(self.prompt(number, read)))
        return self.runs[number, source, read]

    def found(self, changes: list[Change], size: int = 3, start: int = 0) -> dict[str, np.ndarray]:
        probe = Probe(batch_size=size, backend="reference")
        with arrangement(self.model(self.study.own), {"donor": self.study.donor}) as arranged:
            arranged.model.double()
            run = InterventionRun(
                arranged, self.study.tokenizer, self.text, Evaluate(labels=LABELS), probe, self.inputs
            )
            batches = list(run.run(EXPLAINED, changes, silent, StopRequest(), start))
        return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}

    def expected(
        self,
        change: Change,
        make: Callable[[Plain, Found, Found, Pairs], Found],
        places: Callable[[int], Sequence[int]],
    ) -> np.ndarray:
        """Labels' log-probabilities by example; `places`: the tokens of an example that are changed."""
        plain, rows = self.plain["default"], []
        for number in range(len(EXPLAINED)):
            own, other = self.prompt(number), self.prompt(number, change.input)
            with torch.no_grad():
                runs = self.run(number), self.run(number, change.source or "default", change.input)
                changed = make(plain, *runs, stand_ins(places(number), len(own), len(other)))
                ids = [spellings[0][0] for spellings in self.question(number)[1]]
                rows.append(plain.logprobs(changed, ids, len(own) - 1))
        return np.array(rows)


def stand_ins(places: Sequence[int], own: int, other: int) -> Pairs:
    """Tokens count from the end; a shorter text's stand again, but the first is the first."""
    return [(place, 0 if place == 0 else other - 1 - (own - 1 - place) % other) for place in places]


def putting(part: str, layers: Sequence[int], heads: Sequence[int] | None = None) -> Any:
    """A run of the model in which some parts give what they give in the other run."""

    def make(plain: Plain, own: Found, other: Found, pairs: Pairs) -> Found:
        def put(name: str, layer: int, output: Tensor) -> Tensor:
            chosen = name == part and layer in layers
            return mixed(output, other[part, layer], pairs, heads) if chosen else output

        return plain.run(own["residual", 0], put)

    return make


def assert_equal(found: dict[str, np.ndarray], place: int, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found["label_logprob"][:, place], expected, atol=3e-6, rtol=0)


@pytest.fixture(params=NAMES)
def pair(request: Any, tmp_path: Folder, tokenizer: Any) -> Pair:
    return Pair(request.param, tmp_path, tokenizer)


@pytest.fixture
def llama(tmp_path: Folder, tokenizer: Any) -> Pair:
    return Pair("llama", tmp_path, tokenizer)


def change(kind: str, layers: Sequence[int], **options: Any) -> Change:
    return Change(f"{kind} {layers} {options}", kind, kind, tuple(layers), **options)


def test_streams_of_another_run_are_put_in_at_positions(pair: Pair) -> None:
    changes, expected = [change("none", ())], []
    for stream in ("residual", "attention", "mlp"):
        for layers, place in (((2,), -1), ((1, 3), -4), ((3,), -2)):
            for source, read in (("donor", "same"), ("default", "other example"), ("donor", "other label")):
                one = change(
                    "patch",
                    layers,
                    stream=stream,
                    positions=(place,),
                    source=source,
                    input=read,
                    position=str(place),
                )
                changes.append(one)
                at = lambda number, place=place: [len(pair.prompt(number)) + place]  # noqa: E731
                expected.append(pair.expected(one, putting(stream, layers), at))
    found = pair.found(changes)
    apart = [np.abs(values - found["label_logprob"][:, 0]).max() for values in expected]
    assert sum(size > 1e-3 for size in apart) >= 15  # at the last layer other tokens change no answer
    for place, values in enumerate(expected, start=1):
        assert_equal(found, place, values)


def test_a_resampled_output_is_that_of_the_example_drawn(pair: Pair) -> None:
    resampled = {"input": "other example", "source": "default", "ablation": "resample"}
    changes = [
        change("heads", (2,), heads=(1, 3), **resampled),
        change("ablate", (1,), stream="mlp", **resampled),
        change("ablate", (2,), **resampled),
    ]
    found = pair.found(changes)
    everywhere = lambda number: range(len(pair.prompt(number)))  # noqa: E731
    for place, (part, layers, heads) in enumerate(
        [("heads", (2,), (1, 3)), ("mlp", (1,), None), ("residual", (2,), None)]
    ):
        assert_equal(found, place, pair.expected(changes[place], putting(part, layers, heads), everywhere))
    again = pair.found(changes, size=2, start=2)
    np.testing.assert_allclose(again["label_logprob"], found["label_logprob"][2:], atol=1e-6)
    assert {name: len(values) for name, values in again.items()}["other_label"] == len(EXPLAINED) - 2
    drawn = [row["label"] for row in pair.inputs["other example"].rows]
    assert found["other_label"].tolist() == [[label] * 3 for label in drawn]


def test_outputs_are_ablated_by_zero_and_by_their_means(pair: Pair) -> None:
    changes = [
        change("ablate", (2,), stream=stream, ablation=ablation, positions=positions)
        for stream in ("residual", "attention", "mlp")
        for ablation, positions in (("zero", (-1,)), ("mean", (-1,)), ("mean", None))
    ]
    with torch.no_grad():
        runs = [pair.run(number) for number in range(len(EXPLAINED))]
    found = pair.found(changes)
    for place, one in enumerate(changes):
        part = (one.stream, 2)
        mean = torch.cat([run[part][0] for run in runs]).mean(dim=0)
        value = mean if one.ablation == "mean" else 0 * mean

        def make(
            plain: Plain, own: Found, _other: Found, pairs: Pairs, part: Any = part, value: Any = value
        ) -> Found:
            def put(name: str, layer: int, output: Tensor) -> Tensor:
                whole = value.expand_as(output)
                return (
                    mixed(output, whole, [(at, at) for at, _ in pairs]) if (name, layer) == part else output
                )

            return plain.run(own["residual", 0], put)

        def places(number: int, one: Change = one) -> Sequence[int]:
            size = len(pair.prompt(number))
            return range(size) if one.positions is None else [size - 1]

        assert_equal(found, place, pair.expected(one, make, places))


PATHS = [
    Path("attention", (1,), (), "final", LAYERS),
    Path("mlp", (1, 2), (), "final", LAYERS),
    Path("heads", (2,), (1,), "final", LAYERS),
    Path("attention", (1,), (), "mlp", 2),
    Path("mlp", (1,), (), "mlp", 3),
    Path("heads", (2,), (0, 3), "mlp", 2),  # of its own layer, which in parallel layers reads nothing of it
    Path("attention", (1, 2), (), "mlp", 2),
    Path("mlp", (1,), (), "attention", 3),
    Path("heads", (1,), (2,), "attention", 2),
    Path("mlp", (2,), (), "heads", 3, (0, 1)),
    Path("heads", (1,), (2,), "heads", 3, (1,)),
]


@pytest.mark.parametrize(
    ("source", "read", "positions"),
    [("donor", "same", None), ("default", "other example", (-3, -2)), ("donor", "other label", (-1,))],
)
def test_a_path_is_what_its_receiver_alone_reads(
    pair: Pair, source: str, read: str, positions: tuple[int, ...] | None
) -> None:
    changes = [change("none", ())] + [
        change(
            "path", path.layers, heads=path.heads, source=source, input=read, path=path, positions=positions
        )
        for path in PATHS
    ]
    found = pair.found(changes)

    def places(number: int) -> Sequence[int]:
        size = len(pair.prompt(number))
        return range(size) if positions is None else [size + at for at in positions]

    moved = 0
    for place, one in enumerate(changes[1:], start=1):
        path = one.path
        assert path is not None
        make = partial(along_path, path=path)
        assert_equal(found, place, pair.expected(one, make, places))
        difference = np.abs(found["label_logprob"][:, place] - found["label_logprob"][:, 0]).max()
        moved += difference > 1e-5
        if pair.plain["default"].parallel and path == PATHS[5]:
            assert difference == 0
    assert moved >= 3  # other tokens than the last reach the answer by attention alone


def test_segments_and_tokens_of_the_explanation(tmp_path: Folder, tokenizer: Any) -> None:
    pair = Pair("llama", tmp_path, tokenizer, BEFORE)
    text = pair.text
    explained = [text.explanation_places(row) for row in EXPLAINED]
    shortest, longest = min(map(len, explained)), max(map(len, explained))
    assert shortest < longest
    options: dict[str, Any] = {"source": "donor", "stream": "mlp"}
    changes = [
        change("patch", (2,), positions=("explanation",), **options),
        change("patch", (2,), positions=("prompt",), **options),
        change("patch", (2,), positions=(("explanation", 1),), **options),
        change("patch", (2,), positions=(("explanation", longest - 1),), **options),
    ]
    found = pair.found(changes)
    borders = [len(text.encode(row).prompt) for row in EXPLAINED]
    where: list[Callable[[int], Sequence[int]]] = [
        lambda number: explained[number],
        lambda number: range(borders[number]),
        lambda number: explained[number][1:2],
        lambda number: explained[number][longest - 1 :],
    ]
    lacking = [len(places) < longest for places in explained]
    for place, (one, places) in enumerate(zip(changes, where, strict=True)):
        expected = pair.expected(one, putting("mlp", (2,)), places)
        if place == 3:  # an example that has no such token has no result
            assert np.isnan(found["label_logprob"][lacking, place]).all()
            assert (
                np.isnan(found["entropy"][lacking, place]).all()
                and (found["prediction"][lacking, place] == "").all()
            )
            expected[lacking] = np.nan
        assert_equal(found, place, expected)


def test_rows_of_one_batch_are_what_each_change_is_alone(
    llama: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = [
        change("patch", (layer,), stream=stream, positions=(place,), source="donor", input="other label")
        for layer in (1, 2)
        for stream in ("residual", "mlp", "attention")
        for place in (-1, -2, -5)
    ] + [change("heads", (2,), heads=(head,), ablation="mean") for head in range(HEADS)]
    together = llama.found(changes)
    monkeypatch.setattr("engine.stages.interventions.intervene.PACKED_TOKENS", 1)
    alone = llama.found(changes)
    for name in ("label_logprob", "entropy"):
        np.testing.assert_allclose(together[name], alone[name], atol=1e-6)


def test_examples_that_stand_in_are_drawn_by_the_seed_from_other_groups() -> None:
    rows = [{"id": str(number), "label": str(number % 3), "group": str(number // 4)} for number in range(24)]
    for read in ("other example", "other label"):
        drawn = others(rows, read, 1)
        assert all(row["group"] != other["group"] for row, other in zip(rows, drawn, strict=True))
        assert drawn == others(rows, read, 1) != others(rows, read, 2)
        assert len({row["id"] for row in drawn}) > 8
    assert all(row["label"] != other["label"] for row, other in zip(rows, drawn, strict=True))
    with pytest.raises(Exception, match="another group and another label than '0'"):
        others([row for row in rows if row["label"] == "0"], "other label", 1)
    with pytest.raises(Exception, match=r"none of the 4 has another group;.*probe\.examples"):
        others(rows[:4], "other example", 1)
