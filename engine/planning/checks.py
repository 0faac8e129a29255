"""What a plan can know to be wrong before anything runs, from the files that are on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.data.opening import not_data
from engine.data.prepare import no_validation, split_sizes, too_many
from engine.data.sources import sources
from engine.errors import DataError, UsageError
from engine.fingerprints import cache_folder
from engine.models.loading import PACKAGE, is_gguf, local_path
from engine.models.weight_files import BadFileError, safetensors_shapes
from engine.planning import changes
from engine.planning.block_kinds import Blocks
from engine.planning.data_read import test_data, test_prompt, test_table
from engine.planning.key_parts import Cell
from engine.planning.plan import Plan, PlannedCell
from engine.planning.plugins_used import used_names
from engine.planning.sizes import ModelCard, model_card
from engine.planning.stage_keys import data_key
from engine.planning.sweeps import expand
from engine.planning.vocabulary import Vocabulary, vocabulary
from specs import Problem, SpecError
from specs.checks.reserved_names import is_reserved
from specs.common.names import AFTER_ATTENTION, LENS
from specs.common.plugin_names import described
from specs.registry import METRICS, REGISTRIES, STATISTICS
from specs.tables.data import Data
from specs.tables.probe import Probe
from specs.toml.describe import value as spell
from specs.toml.paths import looks_local, no_such
from store.backend.result_files import JACOBIAN_STACK

# Larger files are counted by the data stage alone: a plan has to answer at once.
MOST_BYTES = 32 * 2**20


def check_plan(plan: Plan) -> None:
    """Raise SpecError with every problem, each with its file and line."""
    cards = _cards(plan)
    problems = [
        *_missing_models(plan),
        *_no_data_files(plan),
        *_unfit(plan, cards),
        *_interventions(plan, cards),
        *_steering(plan),
        *_trained_whole(plan),
        *too_few(plan),
        *_unvalidated(plan),
        *_decayed_tokens(plan),
        *_unknown_tokens(plan),
        *_namesakes(plan),
        *_names_of_plugins(plan),
    ]
    if problems:
        raise SpecError(map(plan.matrix.spec.place, problems))


def _namesakes(plan: Plan) -> Iterator[Problem]:
    """Yield names in the spec that a plug-in shares with a built-in entry: which is meant cannot be told."""
    taken = {
        (registry.group, plugin.name): plugin for registry in REGISTRIES for plugin in registry.namesakes()
    }
    for used in used_names(plan.matrix) if taken else ():
        if point := taken.get((used.registry.group, used.name)):
            message = (
                f"the {described(point)} has the name of the engine's own {used.registry.what}; "
                "expected a plug-in with another name, or none: uninstall it"
            )
            yield _problem(plan, used.key, used.cell, message)


def _names_of_plugins(plan: Plan) -> Iterator[Problem]:
    """Yield variables of plug-ins whose names the results or the spec's factors have already."""
    matrix = plan.matrix
    taken = {LENS} | {axis.name for axis in matrix.axes}
    for table, key, registry in (("probe", "statistics", STATISTICS), ("evaluate", "metrics", METRICS)):
        for cell in matrix.distinct(table):
            for name in filter(registry.plugin, getattr(matrix.table(table, cell), key)):
                entry: Any = registry.get(name, object)
                for variable in getattr(entry, "names", (name,)):
                    if is_reserved(variable) or variable in taken or not variable.isidentifier():
                        message = (
                            f'the {registry.plugin(name)} gives "{variable}", which the results or a factor '
                            "have already, or which is no name; expected another name of plug-in or factor"
                        )
                        yield _problem(plan, f"{table}.{key}", cell, message)


def _problem(plan: Plan, key: str, cell: Cell, message: str) -> Problem:
    """Give the problem of a key, where the spec or one of its levels sets it for this cell."""
    at = plan.matrix.written(key, cell)
    return Problem(None, at, message if at == key else f"{key}: {message}")


def _missing_models(plan: Plan) -> Iterator[Problem]:
    """Yield models that are files or folders by their spelling, but are not there."""
    for cell in plan.matrix.distinct("model"):
        name = plan.matrix.table("model", cell).id
        if not name.startswith(PACKAGE) and looks_local(name) and local_path(name) is None:
            yield _problem(plan, "model.id", cell, no_such(name))
        elif (
            not name.startswith(PACKAGE)
            and (path := local_path(name))
            and path.is_file()
            and not is_gguf(path)
        ):
            message = f'found the file "{name}"; expected the folder of a model, a .gguf file or a hub id'
            yield _problem(plan, "model.id", cell, message)


def _no_data_files(plan: Plan) -> Iterator[Problem]:
    """Yield sources that are there and are no tables: files of other formats, and folders that hold none."""
    matrix = plan.matrix
    told: set[str] = set()
    for cell in matrix.distinct("data", "evaluate"):
        tables = {"data": matrix.table("data", cell), "evaluate.data": test_data(matrix, cell)}
        for table, data in tables.items():
            for source in sources(data):
                if source.path is None or str(source) in told or not (wrong := not_data(source.path)):
                    continue
                told.add(str(source))
                yield _problem(plan, f"{table}.source", cell, wrong)


def _cards(plan: Plan) -> dict[Cell, ModelCard]:
    """Give the sizes of the models that are on this machine, by the levels that choose them."""
    cards_of = {}
    for cell in plan.matrix.distinct("model"):
        if card := model_card(plan.matrix.table("model", cell)):
            cards_of[plan.matrix.choice("model", cell)] = card
    return cards_of


def _unfit(plan: Plan, cards: Mapping[Cell, ModelCard]) -> Iterator[Problem]:
    """Yield the layers that a model lacks, and chat templates of tokenizers that have none."""
    matrix = plan.matrix
    for cell in matrix.distinct("model", "prompt", "evaluate", "probe"):
        card = cards.get(matrix.choice("model", cell))
        if card is None:
            continue
        probe = matrix.table("probe", cell)
        lowest = -card.layers - 1
        for layer in probe.layers if probe.enabled and probe.layers != "all" else ():
            if not lowest <= layer <= card.layers:
                message = f"found {layer}; expected {lowest} to {card.layers} for this model"
                yield _problem(plan, "probe.layers", cell, message)
        for key, message in _streams(probe, card.facts.blocks) if probe.enabled else ():
            yield _problem(plan, key, cell, message)
        for message in _lens_of_other_width(probe, card.hidden) if probe.enabled else ():
            yield _problem(plan, "probe.jacobian.path", cell, message)
        prompts = {"prompt": matrix.table("prompt", cell), "evaluate.prompt": test_prompt(matrix, cell)}
        for place, prompt in prompts.items():
            if prompt.chat_template and card.chat_template is False:
                message = "found true, but this model's tokenizer has no chat template; expected false"
                yield _problem(plan, f"{place}.chat_template", cell, message)
                break


def _lens_of_other_width(probe: Probe, width: int) -> Iterator[str]:
    """Say what is wrong with the file of a Jacobian lens, as far as its header tells."""
    path = Path(probe.jacobian.path or "")
    if "jacobian" not in probe.lenses or path.suffix != ".safetensors" or not path.is_file():
        return
    try:
        shapes = safetensors_shapes(path)
    except (BadFileError, OSError) as error:
        yield f'"{path}": {error}'
        return
    for name in [JACOBIAN_STACK] if JACOBIAN_STACK in shapes else shapes:
        if (shape := shapes[name])[-2:] != [width, width]:
            expected = f"matrices of {width} × {width} for this model"
            yield f'"{path}" has {spell(name)} of shape {shape}; expected {expected}'
            return


def _streams(probe: Probe, blocks: Blocks) -> Iterator[tuple[str, str]]:
    """Yield keys that ask for a stream that the blocks of a model do not have, with what is wrong."""
    if blocks == "whole":
        why = (
            "but the blocks of this model do more than add to the residual stream, and cannot be taken apart"
        )
        if probe.streams:
            yield "probe.streams", f"found {spell(list(probe.streams))}, {why}; expected []"
        if probe.attribution:
            yield "probe.attribution", f"found true, {why}; expected false"
    elif blocks == "parallel" and AFTER_ATTENTION in probe.streams:
        message = (
            f"found {spell(AFTER_ATTENTION)}, but the blocks of this model have no residual stream between "
            "attention and MLP, which they add at once; expected the others alone"
        )
        yield "probe.streams", message


def _interventions(plan: Plan, cards: Mapping[Cell, ModelCard]) -> Iterator[Problem]:
    """Yield interventions on layers or heads that a model lacks; each of a spec once."""
    places = {settings.name: i for i, settings in enumerate(plan.matrix.experiment.interventions)}
    tried: set[tuple[str, Cell]] = set()
    for cell in plan.cells if places else ():
        choice = plan.matrix.choice("model", cell.choice)
        for entry in changes.entries(plan, cell) if choice in cards else ():
            name, card = entry.settings.name, cards[choice]
            if (name, choice) in tried:
                continue
            tried.add((name, choice))
            try:
                expand([entry], changes.ModelShape(card.layers, card.heads))
            except UsageError as error:
                # "interventions: NAME.KEY: …"; the key says where that stands in the spec
                _, _, told = str(error).partition(f"{name}.")
                key, _, message = told.partition(": ")
                yield Problem(None, f"interventions[{places[name]}].{key}", message)


def _steering(plan: Plan) -> Iterator[Problem]:
    """Yield differences that interventions add and cells do not measure; each of a spec once."""
    matrix, told = plan.matrix, set[int]()
    places = {settings.name: i for i, settings in enumerate(matrix.experiment.interventions)}
    for cell in plan.cells:
        probe = matrix.table("probe", cell.choice)
        for settings, donor in matrix.interventions(cell.choice):
            place = places[settings.name]
            if settings.kind != "steer" or settings.name not in cell.sources or place in told:
                continue
            key, message = "kind", ""
            lacking = [name for name in settings.from_positions if name not in probe.position_names]
            if "differences" not in cell.keys:
                message = '"steer" adds a mean difference: expected probe.differences = true, found false'
            elif changes.against(matrix, cell.choice, donor) is None:
                key, known = "donor", ", ".join(matrix.references(cell.choice))
                message = f"expected one that probe.against names ({known}), found {spell(settings.donor)}"
            elif lacking:
                key, known = "from_positions", ", ".join(probe.position_names)
                message = f"expected watch positions of the probe ({known}), found {spell(lacking[0])}"
            if message:
                told.add(place)
                yield Problem(None, f"interventions[{place}].{key}", message)


def _trained_whole(plan: Plan) -> Iterator[Problem]:
    """Yield modules that are trained in full where adapters are taken apart, each place once."""
    matrix, told = plan.matrix, set()
    for cell in plan.cells:
        takers = [
            (f'the intervention "{settings.name}" takes', donor)
            for settings, donor in matrix.interventions(cell.choice)
            if settings.name in cell.sources
        ]
        if cell.references:
            takers += [("probe.against takes", other) for other in matrix.references(cell.choice).values()]
        if "neutral" in cell.keys:
            takers.append(("evaluate.neutral_text takes", None))
        for taker, donor in takers:
            for trained in (cell.choice, donor):
                if trained is None or matrix.table("train", trained).steps == 0:
                    continue
                saved = list(matrix.table("lora", trained).modules_to_save)
                at = matrix.written("lora.modules_to_save", trained)
                if saved and at not in told:
                    told.add(at)
                    message = (
                        f"found {spell(saved)}, but {taker} an adapter "
                        "apart by layers, which modules trained in full do not allow; expected [] in cells "
                        "that it changes or takes from"
                    )
                    yield _problem(plan, "lora.modules_to_save", trained, message)


def _decayed_tokens(plan: Plan) -> Iterator[Problem]:
    """Yield weight decay of embeddings of which some rows alone are to be trained."""
    matrix = plan.matrix
    for cell in matrix.distinct("lora", "train"):
        train = matrix.table("train", cell)
        if matrix.table("lora", cell).trained_tokens and train.weight_decay and train.steps != 0:
            message = (
                f"found {train.weight_decay:g} beside lora.trained_tokens, which would change the embeddings "
                "of all other tokens, too; expected 0"
            )
            yield _problem(plan, "train.weight_decay", cell, message)


def _unknown_tokens(plan: Plan) -> Iterator[Problem]:
    """Yield texts that are to be tokens of a model, but that its tokenizer does not have."""
    matrix, read = plan.matrix, dict[Cell, Vocabulary | None]()
    for cell in matrix.distinct("model", "lora", "train"):
        model, choice = matrix.table("model", cell), matrix.choice("model", cell)
        trained = matrix.table("train", cell).steps != 0
        named = [
            ("lora.trained_tokens", token) for token in matrix.table("lora", cell).trained_tokens * trained
        ]
        named += [("model.end_token", token) for token in [model.end_token] if token is not None]
        if named and choice not in read:
            read[choice] = vocabulary(model)
        for key, token in named:
            if (known := read[choice]) is not None and token not in known:
                near = known.nearest(token)
                hint = f"; did you mean {spell(near)}?" if near else ""
                message = (
                    f"found {spell(token)}, which is no token of this model; expected the text of one{hint}"
                )
                yield _problem(plan, key, cell, message)


def _unvalidated(plan: Plan) -> Iterator[Problem]:
    """Yield early stopping that has no examples to go by."""
    matrix = plan.matrix
    for cell in matrix.distinct("data", "evaluate", "train"):
        train, data = matrix.table("train", cell), matrix.table("data", cell)
        if train.early_stopping and train.steps != 0:
            sizes = known_sizes(data, matrix.table("evaluate", cell).labels)
            if sizes is not None and not sizes["validation"]:
                _, _, message = no_validation(train.early_stopping).partition(": ")
                yield _problem(plan, "train.early_stopping", cell, message)


def check_devices(plan: Plan, cells: Iterable[PlannedCell]) -> None:
    """Raise SpecError where this process cannot compute on a device that one of these cells names."""
    from engine.models.devices import choose_device

    problems: dict[str, Problem] = {}
    for cell in cells:
        device = plan.matrix.table("model", cell.choice).device
        try:
            choose_device(device)
        except UsageError as error:
            message = str(error).removeprefix("model.device: ")
            problems.setdefault(device, _problem(plan, "model.device", cell.choice, message))
    if problems:
        raise SpecError(map(plan.matrix.spec.place, problems.values()))


def too_few(plan: Plan) -> Iterator[Problem]:
    """Yield numbers of examples that are beyond what their split holds."""
    matrix = plan.matrix
    for cell in matrix.distinct("data", "evaluate"):
        trained_on, tested = matrix.table("data", cell), test_data(matrix, cell)
        labels = matrix.table("evaluate", cell).labels
        for split, home, data in (
            ("train", "data", trained_on),
            ("validation", "data", trained_on),
            ("test", test_table(matrix, cell), tested),
        ):
            count = getattr(data, split)
            sizes = known_sizes(data, labels) if count is not None else None
            if sizes is not None and count > sizes[split]:
                yield _problem(plan, f"{home}.{split}", cell, too_many(count, int(sizes[split])))


def known_sizes(data: Data, labels: list[str]) -> dict[str, float] | None:
    """Give what `split_sizes` counts of data on this machine; None where that is unknown, or takes long."""
    try:
        return _sizes(data, labels)
    except (DataError, OSError, ValueError):  # `unreadable_data` says what is wrong with them
        return None


def unreadable_data(plan: Plan) -> Iterator[str]:
    """Yield what the data stage will say of data on this machine that it cannot read, once for each."""
    matrix, told = plan.matrix, set()
    for cell in matrix.distinct("data", "evaluate"):
        labels = matrix.table("evaluate", cell).labels
        for data in (matrix.table("data", cell), test_data(matrix, cell)):
            key = data_key(data, labels)
            if key in told or plan.states["data"].get(key) == "cached":
                continue
            told.add(key)
            try:
                _sizes(data, labels)
            except DataError as error:
                yield str(error)
            except (OSError, ValueError):  # of a file that changes under our hands
                continue


def _sizes(data: Data, labels: list[str]) -> dict[str, float] | None:
    origins = sources(data)
    local_paths = [source.path for source in origins if source.path is not None and source.path.is_file()]
    if len(local_paths) + sum(source.data_set is not None for source in origins) < len(origins):
        return None
    if sum(path.stat().st_size for path in local_paths) > MOST_BYTES:
        return None
    memory = cache_folder() / "splits-4" / f"{data_key(data, labels)}.json"
    if memory.is_file():
        return dict(json.loads(memory.read_text("utf-8")))
    sizes = split_sizes(data, labels)
    memory.parent.mkdir(exist_ok=True)
    memory.write_text(json.dumps(sizes), "utf-8")
    return sizes
