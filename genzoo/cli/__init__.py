"""The command line. Light: a command imports torch when it needs it; ``list``, ``show``, ``plugins`` never do."""

from __future__ import annotations

import copy
import gc
import importlib
import os
import signal
import sys
from typing import Any

import click

from genzoo.errors import GenzooError, nearest, out_of_memory, printable, quoted

#: Command -> the module of this package that holds it, among its ``COMMANDS``; imported when it is asked for.
COMMANDS = {
    "list": "catalogue",
    "show": "catalogue",
    "plugins": "catalogue",
    "generate": "generate",
    "edit": "edit",
    "sample": "sample",
    "compare": "compare",
    "bench": "bench",
    "report": "report",
    "train": "train",
    "stability": "stability",
    "reference": "reference",
    "pull": "hub",
    "push": "hub",
    "convert": "hub",
    "export": "hub",
    "verify": "hub",
    "cache": "hub",
}

#: As shells do: 128 and the number of the signal.
INTERRUPTED = 130
TERMINATED = 143

#: For what a user can mend, and for a fault of the program or of a plugin.
MISTAKE = 2
FAULT = 1


class Terminated(BaseException):
    """Somebody asked the program to end; no Exception, so that nothing on the way takes it for a plugin's fault."""


class Commands(click.Group):
    """A group that imports a command at its first use, and suggests the nearest for a misspelt one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*COMMANDS, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if COMMANDS.get(cmd_name) != "catalogue":
            gc.enable()  # this one may run for hours; see main
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module = importlib.import_module(f"genzoo.cli.{COMMANDS[cmd_name]}")
        found: click.Command = next(command for command in module.COMMANDS if command.name == cmd_name)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in self.list_commands(ctx):
            close = nearest(name, self.list_commands(ctx), cutoff=0.4)
            advice = f"did you mean 'genzoo {close}'?" if close else "see genzoo --help"
            raise GenzooError(f"no command named {quoted(name)}; {advice}")
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="genzoo")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """A zoo of generative image models: one interface, and one honest measurement.

    Start with: genzoo compare
    """


def main(argv: list[str] | None = None) -> None:
    """The program. Exits with 0, with 2 for what the user can mend, or with 128 and a signal's number."""
    # All that a start makes stays to the end: looking through it for garbage, above all at the exit, would take a tenth
    # of the time of a command that only tells something.
    gc.disable()
    # Threads that wait for work spin for a moment, then sleep: spinning on beside another program costs minutes, and
    # sleeping at once doubles the time of one picture. OpenMP reads it when torch is imported; a user's setting wins.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # pydantic would look through all that is installed for plugins of its own, before the first card is read.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    signal.signal(signal.SIGTERM, _terminate)
    code = run(sys.argv[1:] if argv is None else argv)
    gc.freeze()
    sys.exit(code)


def _terminate(number: int, frame: Any) -> None:
    # As an exception, so that what is half done is cleared away on the way out.
    raise Terminated


def run(arguments: list[str]) -> int:
    """The program without the exit: the exit code."""
    debug = "--debug" in arguments
    try:
        program = _program()
        given = [argument for argument in arguments if argument != "--debug"]
        outcome: Any = program.main(given, prog_name="genzoo", standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except (KeyboardInterrupt, click.Abort):
        click.echo("genzoo: interrupted", err=True)
        return INTERRUPTED
    except Terminated:
        click.echo("genzoo: terminated", err=True)
        return TERMINATED
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "see genzoo --help")
        return 0
    except Exception as error:
        if debug:
            sys.excepthook(type(error), error, error.__traceback__)
        click.echo(f"genzoo: {one_line(error)}", err=True)
        known = isinstance(error, GenzooError | click.ClickException | OSError) or out_of_memory(error)
        return MISTAKE if known else FAULT


def _program() -> Commands:
    """The commands of genzoo and of its plugins."""
    from genzoo.registry import default_zoo

    # A copy, because plugins add to it.
    program = copy.copy(cli)
    program.commands = dict(cli.commands)
    default_zoo().extend_cli(program)
    return program


def one_line(error: Exception) -> str:
    """An error's message on one line, with what to type next."""
    if isinstance(error, GenzooError):
        return printable(str(error))
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "genzoo"
        return printable(f"{error.format_message().rstrip('.')}; see {path} --help")
    if isinstance(error, click.ClickException):
        return printable(error.format_message())
    if out_of_memory(error):
        return "out of memory; try a smaller --batch"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return printable(f"{where}{error.strerror or error}; check the path, its rights and the free space")
    return printable(f"{type(error).__name__}: {error}: a fault of the program or of a plugin; add --debug for where")
