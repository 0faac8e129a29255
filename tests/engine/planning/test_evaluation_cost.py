"""What an evaluation costs by what it asks of the model."""

from __future__ import annotations

import pytest
import torch
from tiny_models import MODELS, TRAINABLE, build

import engine
from engine.models.lens import find_lens
from engine.models.shared_prefix import shared_prefix
from engine.planning.cost import Cost
from engine.planning.estimate import estimate
from engine.planning.sizes import card_of
from specs.tables.target import Prompt

FIRST = 'target.placement="before"'


@pytest.fixture
def tokens(write_spec):
    """Give a function from overrides to the tokens of one cell's evaluation, with an explanation first."""
    spec = write_spec()

    def of(*overrides: str) -> float:
        plan = engine.plan(spec, (FIRST, "seeds=[0]", *overrides))
        cell = next(cell for cell in plan.cells if "label+explanation" in str(plan.levels(cell)))
        costs = estimate(plan, [cell])
        assert costs is not None
        return costs["evaluate"].tokens

    return of


def test_each_explanation_in_anothers_place_is_a_pass(tokens) -> None:
    plain, one, two = (
        tokens(*more)
        for more in (
            (),
            ('evaluate.counterfactuals=["empty"]',),
            ('evaluate.counterfactuals=["empty", "other"]',),
        )
    )
    assert plain < one and two - one == pytest.approx(one - plain)


def test_each_sample_is_a_generation_with_its_prompt(tokens) -> None:
    plain, one, three = (tokens(f"evaluate.sampling.samples={count}") for count in (0, 1, 3))
    assert one > plain and three - plain == pytest.approx(3 * (one - plain))
    held = tokens("evaluate.sampling.samples=1", "evaluate.sampling.constrained=true")
    assert held > one


CACHED = ["llama", "mistral", "qwen3", "gemma 2, soft-capped", "phi3", "gpt2", "gpt-neox", "opt", "mixtral"]


@pytest.mark.parametrize("name", CACHED)
def test_the_cache_of_a_token_is_that_of_the_model(name: str) -> None:
    model = build(*MODELS[name])
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    card = card_of(model.config.to_dict(), shapes)
    assert card is not None
    ids = torch.randint(3, 90, (2, 7))
    cache = model(input_ids=ids, use_cache=True).past_key_values
    numbers = sum(tensor.numel() for layer in cache.layers for tensor in (layer.keys, layer.values))
    if name != "mistral":  # whose sliding window keeps the last tokens alone
        assert card.cached_numbers == numbers / ids.numel()
    assert card.cached_numbers >= numbers / ids.numel()


def test_generating_keeps_keys_and_values_of_the_longest_prompts(write_spec) -> None:
    spec = write_spec()

    def memory(*overrides: str) -> float:
        plan = engine.plan(spec, ("seeds=[0]", *overrides))
        costs = estimate(plan, list(plan.cells)[:1])
        assert costs is not None
        return costs["evaluate"].memory

    generating = 'evaluate.scoring=["loglikelihood", "generation"]'
    small, large = (memory(generating, f"evaluate.batch_size={rows}") for rows in (1, 9))
    scored = [memory('evaluate.scoring=["loglikelihood"]', f"evaluate.batch_size={rows}") for rows in (1, 9)]
    assert large - small > scored[1] - scored[0]


def test_a_known_device_writes_as_many_answers_at_once_as_its_memory_takes(write_spec) -> None:
    spec = write_spec()

    def cost(*overrides: str) -> Cost:
        generating = 'evaluate.scoring=["generation"]'
        plan = engine.plan(spec, ("seeds=[0]", "data.test=16", generating, *overrides))
        costs = estimate(plan, list(plan.cells)[:1])
        assert costs is not None
        return costs["evaluate"]

    device, small = 'executor.device="h100"', "evaluate.batch_size=1"
    unknown, known, fixed = cost(small), cost(small, device), cost(device, "evaluate.generation_batch=2")
    assert unknown.streamed == 2 * fixed.streamed == 16 * known.streamed
    assert unknown.memory < fixed.memory < known.memory < 80e9
    assert unknown.tokens == known.tokens == fixed.tokens


LONG = 'prompt.template="{}{{response}}"'.format("Rate it from 1 to 3. " * 40)


def test_what_all_prompts_begin_with_is_read_once_for_a_batch(write_spec) -> None:
    """By an evaluation and by a probe, whether they can share a pass or not."""
    spec = write_spec()

    def costs(*overrides: str) -> tuple[Cost, Cost]:
        plan = engine.plan(spec, ("seeds=[0]", *overrides))
        found = estimate(plan, list(plan.cells)[:1])
        assert found is not None
        return found["evaluate"], found["probe"]

    behind, prompt = 'probe.positions=["completion_end"]', 'probe.positions=[{range="prompt",most=4}]'
    eight, one = ("evaluate.batch_size=8", "probe.batch_size=8"), ("evaluate.batch_size=1", prompt)
    examples, head = 6, len("Rate it from 1 to 3. " * 40) / 4
    evaluated, probed = zip(costs(LONG, *eight), costs(LONG, *one), strict=True)
    for spared, whole in (evaluated, probed):
        assert whole.tokens - spared.tokens == pytest.approx(examples * head * 7 / 8)
        assert spared.flops < whole.flops
    assert costs(LONG, behind, *eight)[1].tokens == probed[0].tokens
    short, whole = costs(*eight)[1], costs(*eight, prompt)[1]
    assert short.tokens == whole.tokens and probed[0].memory > short.memory


def test_what_prompts_begin_with_ends_where_the_example_begins() -> None:
    assert Prompt(template="Rate the {dimension} of {{it}} as {labels}:\n{response} {context}").head == (
        "Rate the dimension of {it} as labels:\n"
    )
    assert Prompt(template="{response}: {labels}", system="Rate {dimension}. ").head == "Rate {dimension}. "
    assert Prompt(template="No field.").head == "No field."
    assert Prompt(template="Behind a chat.", system="Rate.", messages=True).head == "Rate."


@pytest.mark.parametrize("name", MODELS | TRAINABLE)
def test_models_that_keep_all_keys_are_told_by_their_settings(name: str) -> None:
    """None is that goes on from no prefix; those whose settings leave it open count as others."""
    kind, config = (MODELS | TRAINABLE)[name]
    model = build(kind, config)
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    settings = model.config.get_text_config(decoder=True).to_dict()
    card = card_of(settings, shapes)
    able = shared_prefix(find_lens(model), [[5] * 40 + [6], [5] * 40 + [7]]) is not None
    if card is not None:
        assert able or not card.facts.keeps_all
        assert card.facts.keeps_all or name not in ("llama", "qwen3", "gpt2", "gpt-neox", "opt", "gemma")
