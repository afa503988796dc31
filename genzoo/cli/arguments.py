"""What several commands accept, read in one way."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from genzoo.errors import OptionError

F = TypeVar("F", bound=Callable[..., Any])

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
MAX_SEEDS = 10_000_000


def sampling_options(command: F) -> F:
    """--steps, --scheduler, --guidance and -O, for commands that generate, and how exactly they do."""
    exact = click.option("--exact", is_flag=True, help="Pad short batches: bit-equal pixels whatever -n.")
    return model_options(exact(command))


def model_options(command: F) -> F:
    """--steps, --scheduler, --guidance and -O, --batch and --device."""
    decorators = (
        click.option("--steps", type=int, help="Steps of the scheduler."),
        click.option("--scheduler", help="As ddim, or with options as ddim:eta=0.5,spacing=trailing."),
        click.option("--guidance", help="The scale of classifier-free guidance, or a guidance's name."),
        click.option(
            "-O", "--option", "extra", multiple=True, metavar="KEY=VALUE", help="Any other option of the model."
        ),
        click.option("--batch", type=int, default=64, show_default=True, help="Images per network call."),
        click.option("--device", default="cpu", show_default=True, help="cpu, cuda, mps."),
    )
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


def sampling_values(
    steps: int | None, scheduler: str | None, guidance: str | None, extra: tuple[str, ...]
) -> dict[str, Any]:
    """The options that were given, as generate takes them."""
    from genzoo.documents import scalar

    given: dict[str, Any] = {}
    if steps is not None:
        given["steps"] = steps
    if scheduler is not None:
        given["scheduler"] = scheduler
    if guidance is not None:
        given["guidance"] = scalar(guidance)
    for item in extra:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise OptionError(f"-O {item!r}: write KEY=VALUE")
        given[key] = scalar(value)
    return given


def parse_seeds(text: str) -> list[int]:
    """ "0-999", "3,5,9" or a mixture."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:-(\d{1,10}))?\s*", part)
        if not match:
            raise OptionError(f"--seeds {text!r}: write a range as 0-999, or seeds as 3,5,9")
        first = int(match[1])
        last = int(match[2] or first)
        if last < first or len(seeds) + last - first + 1 > MAX_SEEDS:
            raise OptionError(f"--seeds {part.strip()!r}: a range runs upwards, with at most {MAX_SEEDS} seeds in all")
        seeds += range(first, last + 1)
    if len(set(seeds)) != len(seeds):
        raise OptionError(f"--seeds {text!r}: a seed stands there twice; the same picture would count twice")
    return seeds


def check_count(count: int) -> int:
    """-n, at least 1."""
    if not 1 <= count <= MAX_SEEDS:
        raise OptionError(f"-n {count} is out of range; give 1 to {MAX_SEEDS}")
    return count


def parse_duration(text: str) -> float:
    """Seconds from "90", "90s", "30m" or "1.5h"."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match or not 0 < float(match[1]) * _UNITS[match[2]] < 1e9:
        raise OptionError(f"--time-limit {text!r}: write seconds, or a number with s, m or h, as 90m")
    return float(match[1]) * _UNITS[match[2]]


def command_line() -> str:
    """What was typed, as a shell would take it."""
    return shlex.join(["genzoo", *sys.argv[1:]])
