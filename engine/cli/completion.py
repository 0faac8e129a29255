"""The command `completion`, and help that is not cut."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from engine.terminal import say

SHELLS = ("bash", "zsh", "fish")


class Group(click.Group):
    """Commands whose list in the help has the whole first sentence of each."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list."""
        commands = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [(name, command.get_short_help_str(limit=1000)) for name, command in commands if command]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script by which bash, zsh or fish completes commands, options and files."""
    kind = get_completion_class(shell)
    assert kind is not None, shell
    say(kind(ctx.find_root().command, {}, "engine", "_ENGINE_COMPLETE").source(), lines=True)
