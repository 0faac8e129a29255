"""The command `init`: from a data set to a spec that plans and runs."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from attrs import define, evolve, field

from engine.errors import DataError, UsageError
from engine.terminal import say, shown
from specs.common.spelling import alike

if TYPE_CHECKING:
    from engine.cli.new_spec import NewSpec, Roles
    from engine.data.looking import Look


@click.command()
@click.argument("data", metavar="DATA")
@click.option("--label", metavar="COLUMN", help="The column of the label.")
@click.option("--text", "--response", "response", metavar="COLUMN", help="The column of the rated text.")
@click.option("--context", metavar="COLUMN", help='What the text replies to; "" for nothing.')
@click.option("--explanation", metavar="COLUMN", help='The reason for the label; "" for none.')
@click.option("--group", metavar="COLUMN", help="Rows of one group stay on one side of the split.")
@click.option("--model", metavar="MODEL", help="A hub id, folder or .gguf file; by default SmolLM2-135M.")
@click.option("--name", metavar="NAME", help="Of the experiment; by default that of DATA.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file; by default NAME.toml.")
@click.option("--yes", is_flag=True, help="Ask nothing: take the likeliest where it cannot be told.")
def init(
    data: str,
    label: str | None,
    response: str | None,
    context: str | None,
    explanation: str | None,
    group: str | None,
    model: str | None,
    name: str | None,
    output: Path | None,
    yes: bool,
) -> None:
    """Write a spec for a data set: a CSV, JSONL or Parquet file, a folder of them, a hub id."""
    from engine.cli import new_spec
    from engine.data.looking import look
    from specs.toml.paths import located, no_such

    given = {
        "label": label, "response": response, "context": context,
        "explanation": explanation, "group": group,
    }  # fmt: skip
    if not data.strip():
        raise UsageError(
            f'init: found "{data}"; expected a file or folder of data, or the id of a hub data set'
        )
    name = name or _name_of(data)
    file = output or Path(f"{name}.toml")
    if os.path.lexists(file):
        raise UsageError(f"{file}: is there already; expected -o with another file")
    source = located(data, Path.cwd())
    if Path(source).is_absolute() and not Path(source).exists():
        raise UsageError(f"init: {no_such(data)}")
    try:
        seen = look(source, dimension=new_spec.DIMENSION)
    except DataError as error:
        raise DataError(str(error).replace("data.source: ", "init: ", 1)) from None
    if seen.fixed:
        roles, labels = _fixed(data, seen, given), list(seen.own_labels)
    else:
        roles, labels = _Choice(data, seen, given, yes).roles(), []
    labels = labels or list(seen.columns[roles.label].labels)
    model_id, chats = _model(model, file)
    spec = new_spec.NewSpec(
        name=name,
        source=_spelled(data, source, file),
        absolute=source,
        seen=seen,
        roles=roles,
        model=model_id,
        chats=chats,
        labels=new_spec.ordered(labels),
        dimension=new_spec.DIMENSION if seen.fixed else roles.label,
    )
    cells = _write(file, spec)
    for line in _told(data, spec):
        say(line)
    say(f"wrote {file}: {cells}")
    commands = [shlex.join(["engine", name, str(file)]) for name in ("plan", "execute")]
    say(f"next: {commands[0]}\n      {commands[1]}", lines=True)


def _name_of(data: str) -> str:
    """Give a name that an experiment may have, after a file, folder or hub id."""
    from specs.toml.paths import data_suffix

    path = Path(data)
    stem = path.name.removesuffix(".gz").removesuffix(".GZ")
    stem = stem[: -len(suffix)] if (suffix := data_suffix(path)) else stem
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:100] or "study"


@define
class _Choice:
    """Finds the columns' roles; asks a person at a terminal where they cannot be told."""

    data: str
    seen: Look
    given: dict[str, str | None]
    yes: bool
    mistakes: list[str] = field(factory=list)

    def roles(self) -> Roles:
        """Give the column of each role; SpecError with all that is wrong with options and columns."""
        from engine.cli.new_spec import Roles, label_mistakes
        from specs import Problem, SpecError
        from specs.toml.describe import value as spell

        for role, column in self.given.items():
            if column and column not in self.seen.columns:
                self.mistakes.append(_no_column(role, column, self.seen))
        label = self._needed("label", ())
        found = label in self.seen.columns and self.seen.columns[label].labels
        taken = (label, self.given["context"], self.given["explanation"])
        # Of a mistaken label nothing follows for the text.
        response = self._needed("response", taken) if found else self.given["response"] or ""
        context = self._optional("context", (label, response))
        explanation = self._optional("explanation", (label, response, context))
        group = self._optional("group", (label, response, context, explanation))
        chosen = [name for name in (label, response, context, explanation) if name]
        for twice in sorted({name for name in chosen if chosen.count(name) > 1}):
            self.mistakes.append(f'column "{twice}" was given two roles; expected one each')
        self.mistakes += [
            f"the name of column {spell(name)} holds a NUL character; expected another name"
            for name in (*chosen, group)
            if "\0" in name
        ]
        if label in self.seen.columns:
            self.mistakes += label_mistakes(self.seen, label)
        if self.mistakes:
            raise SpecError([Problem(None, "", f"{self.data}: {mistake}") for mistake in self.mistakes])
        return Roles(label, response, context, explanation or None, group or None)

    def _needed(self, role: str, taken: Iterable[str | None]) -> str:
        """Give the column of a role that every spec has; "" where it cannot be told."""
        from engine.cli.new_spec import described, several
        from engine.data.looking import likely, told

        if column := self.given[role]:
            return column
        fitting = likely(self.seen, role, [name for name in taken if name])
        option = "--label" if role == "label" else "--text"
        what = "of 2 to 30 short values that repeat" if role == "label" else "of texts"
        if not fitting:
            found = ", ".join(f"{name} ({described(held)})" for name, held in self.seen.columns.items())
            self.mistakes.append(f"no column {what}; found {found}; expected {option} COLUMN")
            return ""
        if self.yes or told(role, fitting):
            return fitting[0]
        if not self.mistakes and sys.stdin.isatty() and sys.stdout.isatty():
            say(f"Which column holds the {'label' if role == 'label' else 'rated text'}?")
            for name in fitting:
                say(f"  {several([name], self.seen)}")
            return _asked(fitting)
        self.mistakes.append(
            f"which column holds the {role} cannot be told; expected {option} with "
            f"{several(fitting[:5], self.seen)}, or --yes for the first"
        )
        return ""

    def _optional(self, role: str, taken: Iterable[str | None]) -> str:
        """Give the column of a role that a data set may lack, by its name alone; "" for none."""
        from engine.data.looking import NAMES, likely

        if (column := self.given[role]) is not None:
            return column
        known = {*NAMES[role]}
        if role == "explanation":
            known |= {f"{self.given['label']}_{name}" for name in ("explanation", "reason")}
        fitting = likely(self.seen, role, [name for name in taken if name])
        named = [name for name in fitting if name.lower() in known]
        return named[0] if len(named) == 1 or (named and named[0].lower() == role) else ""


def _asked(fitting: Sequence[str]) -> str:
    """Ask for one of these columns, by its name as it is shown; the first by default."""
    names = {shown(name): name for name in fitting}

    def chosen(answer: str) -> str:
        if answer not in names:
            raise click.UsageError(f"expected one of {', '.join(names)}")
        return names[answer]

    first = shown(fitting[0])
    return str(
        click.prompt(
            f"column ({', '.join(names)}) [{first}]", default=first, show_default=False, value_proc=chosen
        )
    )


def _no_column(role: str, column: str, seen: Look) -> str:
    option = "--text" if role == "response" else f"--{role}"
    return (
        f"{option} {column}: no such column{alike(column, seen.columns)}; expected one of "
        f"{', '.join(seen.columns)}"
    )


def _fixed(data: str, seen: Look, given: dict[str, str | None]) -> Roles:
    """Give the roles of a data set that has the engine's own columns."""
    from engine.cli.new_spec import Roles

    if asked := [role for role, column in given.items() if column is not None]:
        raise UsageError(f"{data}: has columns of its own; expected no option --{asked[0]}")
    if "label" not in seen.columns:
        raise UsageError(f"{data}: has no ratings; `engine annotate` makes them, in a file to begin with")
    explained = "explanation" in seen.columns
    return Roles("label", "response", "context", "explanation" if explained else None)


def _model(given: str | None, file: Path) -> tuple[str, bool]:
    """Give the model as the spec spells it, and whether its tokenizer is known to have a chat template."""
    from engine.cli.new_spec import default_model
    from engine.planning.sizes import model_card
    from specs.tables.experiment import Model
    from specs.toml.paths import located

    name = given or default_model()
    model_path = located(name, Path.cwd())
    card = model_card(Model(id=model_path))
    return _spelled(name, model_path, file), bool(card and card.chat_template)


def _spelled(given: str, path: str, file: Path) -> str:
    """Give a path as it is spelled from the folder of the spec; what is no path stays as it is."""
    if not Path(path).is_absolute() or given == path:
        return given
    spelled = Path(os.path.relpath(path, os.path.realpath(file.parent))).as_posix()
    if ":" in spelled:  # which would be read as a URL or a package
        return path
    return spelled if spelled.startswith(".") else f"./{spelled}"


def _write(file: Path, spec: NewSpec) -> str:
    """Write the spec, once it has been planned; say what it amounts to."""
    from engine.api import plan
    from engine.quantities import count
    from specs import SpecError
    from specs.common.whole_files import beside

    with beside(file) as draft:
        draft.write_text(spec.text(), "utf-8")
        try:
            planned = plan(draft)
        except SpecError as error:  # the draft's lines are nobody's, for it is not kept
            raise SpecError([evolve(wrong, file=None) for wrong in error.problems]) from None
        try:
            os.link(draft, file)  # unlike a renaming it never takes another file's place
        except FileExistsError:
            raise UsageError(f"{file}: is there already; expected -o with another file") from None
    axes = " × ".join(f"{axis.name} ({len(axis.levels)})" for axis in planned.matrix.axes)
    return f"{count(len(planned.cells), 'cell')}, {axes}"


def _told(data: str, spec: NewSpec) -> Iterator[str]:
    """Say what was found in the data."""
    seen, roles = spec.seen, spec.roles
    yield f"{data}: {'' if seen.whole else 'the first '}{seen.rows:,} rows"
    for role, column in (
        ("label", roles.label), ("text", roles.response), ("context", roles.context),
        ("explanation", roles.explanation), ("group", roles.group),
    ):  # fmt: skip
        if column and column in seen.columns:
            held = seen.columns[column]
            values = ", ".join(
                f"{label} ({held.labels[label]:,})" for label in spec.labels if label in held.labels
            )
            size = f"{held.filled:,} rows, {held.characters // max(1, held.filled):,} characters each"
            yield f"  {role:<12} {column}: {values if role == 'label' and values else size}"
    if seen.own_labels:
        yield f"  labels       {', '.join(seen.own_labels)}"
