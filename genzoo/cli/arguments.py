"""What several commands accept, read in one way."""

from __future__ import annotations

import dataclasses
import functools
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genzoo.errors import OptionError, quoted
from genzoo.registry import default_zoo

if TYPE_CHECKING:
    from genzoo.generator import Generator

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
MAX_SEEDS = 10_000_000


#: A folder that a command writes into.
FOLDER = click.Path(file_okay=False, path_type=Path)

device_option = click.option("--device", default="cpu", show_default=True, help="cpu, cuda, mps.")
seed_option = click.option("--seed", default=0, show_default=True, help="The first picture's seed; the others follow.")
labels_option = click.option(
    "--label", "labels", multiple=True, help="A class, by name or number; several are taken in turn."
)
data_option = click.option("--data", help="Where the data set lies, if not where its plugin looks.")


@dataclass(frozen=True)
class Sampling:
    """How a model is asked for pictures.

    Attributes:
        options: the model's own, as steps and guidance; those that were given.
        batch: images per network call.
        device: where the model runs.
        dtype: of its weights, by name; None for float32.
        exact: pad short batches.
    """

    options: Mapping[str, Any]
    batch: int
    device: str
    dtype: str | None = None
    exact: bool = False

    def asking(self, **options: Any) -> Sampling:
        """The same with further options."""
        return dataclasses.replace(self, options={**self.options, **options})

    def load(self, name: str) -> Generator:
        """The model of that name, where and how it was asked for."""
        return default_zoo().load(name, device=self.device, dtype=self.dtype)

    @property
    def call(self) -> dict[str, Any]:
        """The keywords of ``Generator.generate`` and its like."""
        return {"batch": self.batch, "exact": self.exact, **self.options}


def model_options(command: Callable[..., Any]) -> Any:
    """--steps, --scheduler, --guidance and -O, which the command is given as one mapping, ``options``."""

    @functools.wraps(command)
    def gathered(
        *, steps: int | None, scheduler: str | None, guidance: str | None, extra: tuple[str, ...], **others: Any
    ) -> Any:
        return command(options=sampling_values(steps, scheduler, guidance, extra), **others)

    return optioned(
        gathered,
        click.option("--steps", type=int, help="Steps of the scheduler."),
        click.option("--scheduler", help="As ddim, or with options as ddim:eta=0.5,spacing=trailing."),
        click.option("--guidance", help="The scale of classifier-free guidance, or a guidance's name."),
        click.option(
            "-O", "--option", "extra", multiple=True, metavar="KEY=VALUE", help="Any other option of the model."
        ),
    )


def sampling_options(*, dtype: bool = True, exact: bool = True) -> Callable[[Callable[..., Any]], Any]:
    """Everything of a ``Sampling``, which the command is given as ``sampling``.

    Args:
        dtype, exact: whether the command has --dtype and --exact; without them, the sampling has the usual.
    """

    def decorate(command: Callable[..., Any]) -> Any:
        @functools.wraps(command)
        def gathered(*, options: dict[str, Any], batch: int, device: str, **others: Any) -> Any:
            given = {name: others.pop(name) for name in ("dtype", "exact") if name in others}
            return command(sampling=Sampling(options, batch, device, **given), **others)

        batch = click.option("--batch", type=int, default=64, show_default=True, help="Images per network call.")
        padded = click.option("--exact", is_flag=True, help="Pad short batches: bit-equal pixels whatever -n.")
        typed = click.option("--dtype", help="Of the weights: fp32, bf16, fp16.")
        optional = [option for option, wanted in ((typed, dtype), (padded, exact)) if wanted]
        return model_options(optioned(gathered, batch, device_option, *optional))

    return decorate


def optioned(command: Callable[..., Any], *options: Callable[[Any], Any]) -> Any:
    """A command with options, which its help shows in that order."""
    for option in reversed(options):
        command = option(command)
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
            raise OptionError(f"-O {quoted(item)}: write KEY=VALUE")
        given[key] = scalar(value)
    return given


def parse_seeds(text: str) -> list[int]:
    """ "0-999", "3,5,9" or a mixture."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:-(\d{1,10}))?\s*", part)
        if not match:
            raise OptionError(f"--seeds {quoted(text)}: write a range as 0-999, or seeds as 3,5,9")
        first = int(match[1])
        last = int(match[2] or first)
        if last < first or len(seeds) + last - first + 1 > MAX_SEEDS:
            raise OptionError(f"--seeds {part.strip()!r}: a range runs upwards, with at most {MAX_SEEDS} seeds in all")
        seeds += range(first, last + 1)
    if len(set(seeds)) != len(seeds):
        raise OptionError(f"--seeds {quoted(text)}: a seed stands there twice; the same picture would count twice")
    return seeds


def check_count(count: int) -> int:
    """-n, at least 1."""
    if not 1 <= count <= MAX_SEEDS:
        raise OptionError(f"-n {count} is out of range; give 1 to {MAX_SEEDS}")
    return count


def parse_duration(text: str, option: str = "--time-limit") -> float:
    """Seconds from "90", "90s", "30m" or "1.5h"; raises OptionError that names the option."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match or not 0 < float(match[1]) * _UNITS[match[2]] < 1e9:
        raise OptionError(f"{option} {quoted(text)}: write seconds, or a number with s, m or h, as 90m")
    return float(match[1]) * _UNITS[match[2]]


def command_line() -> str:
    """What was typed, as a shell would take it."""
    return shlex.join(["genzoo", *sys.argv[1:]])
