"""The command `publish`."""

from __future__ import annotations

from pathlib import Path

import click

from engine.cli.parameters import CELL, EXPERIMENT
from engine.cli.spec_or_store import OF_CELLS, Results
from engine.errors import UsageError
from engine.terminal import say


@click.command()
@OF_CELLS
@CELL
@click.option("--to", "form", required=True, type=click.Choice(["folder", "hub"]), help="Where it goes.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The folder: a new one, or empty.")
@click.option("--repo", metavar="OWNER/NAME", help="The hub's repository; made if it is new.")
@click.option(
    "--public", is_flag=True, help="Let everybody see a repository that is made; else it is private."
)
@click.option("--base-model", metavar="ID", help="Base model as others can load it; by default the spec's.")
@EXPERIMENT
def publish(
    of: Results,
    cell: tuple[str, ...],
    form: str,
    output: Path | None,
    repo: str | None,
    public: bool,
    base_model: str | None,
    experiment: str | None,
) -> None:
    """Write a cell's adapter with a model card, for peft alone to load: to a folder or the hub."""
    wanted, other = (("-o", output), ("--repo", repo))[:: 1 if form == "folder" else -1]
    if wanted[1] is None or other[1] is not None or (public and form == "folder"):
        surplus = f", without {other[0]}" if other[1] is not None else ""
        surplus = surplus or (", without --public" if public and form == "folder" else "")
        raise UsageError(f"publish --to {form}: expected {wanted[0]}{surplus}")
    from engine.publishing.facts import published_cell
    from engine.publishing.publish import to_folder, to_hub
    from store.backend.locate import place_of

    published = published_cell(place_of(of.store), cell, experiment or of.experiment)
    say(
        to_folder(published, output, base_model)
        if output is not None
        else to_hub(published, str(repo), base_model, public=public)
    )
