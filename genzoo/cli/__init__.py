"""The command line. Light: a command imports torch when it needs it; ``list``, ``show``, ``plugins`` never do."""

from __future__ import annotations

import difflib
import sys
from typing import Any

import click

from genzoo.cli import catalogue, compare, generate, reference, train
from genzoo.errors import GenzooError
from genzoo.registry import default_zoo

#: As shells do: 128 and the number of the signal.
INTERRUPTED = 130


class Commands(click.Group):
    """A group that suggests the nearest command for a misspelt one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            close = difflib.get_close_matches(name, self.list_commands(ctx), n=1, cutoff=0.4)
            advice = f"did you mean 'genzoo {close[0]}'?" if close else "see genzoo --help"
            raise GenzooError(f"no command named {name!r}; {advice}")
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="genzoo")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """A zoo of generative image models: one interface, and one honest measurement.

    Start with: genzoo compare
    """


for _module in (catalogue, generate, compare, train, reference):
    for _command in _module.COMMANDS:
        cli.add_command(_command)


def main(argv: list[str] | None = None) -> None:
    """The program. Exits with 0, with 2 for what the user can mend, or with 130 when interrupted."""
    arguments = sys.argv[1:] if argv is None else argv
    sys.exit(run(arguments))


def run(arguments: list[str]) -> int:
    """The program without the exit: the exit code."""
    try:
        default_zoo().extend_cli(cli)
        outcome: Any = cli.main(arguments, prog_name="genzoo", standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except (KeyboardInterrupt, click.Abort):
        click.echo("genzoo: interrupted", err=True)
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "see genzoo --help")
        return 0
    except (GenzooError, click.ClickException, OSError, MemoryError) as error:
        if "--debug" in arguments:
            raise
        click.echo(f"genzoo: {one_line(error)}", err=True)
        return 2


def one_line(error: BaseException) -> str:
    """An error's message on one line, with what to type next."""
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "genzoo"
        text = error.format_message().rstrip(".")
        return " ".join(f"{text}; see {path} --help".split())
    if isinstance(error, click.ClickException):
        return " ".join(error.format_message().split())
    if isinstance(error, MemoryError):
        return "out of memory; try a smaller --batch"
    if isinstance(error, OSError) and not isinstance(error, GenzooError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}; check the path, its rights and the free space"
    return " ".join(str(error).split())
