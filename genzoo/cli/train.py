"""``genzoo train``: weights from a recipe."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import click

from genzoo.cli import Terminated
from genzoo.cli.arguments import FOLDER, data_option, device_option, parse_duration
from genzoo.errors import OptionError, UnknownName
from genzoo.registry import default_zoo


def recipe_path(text: str) -> Path:
    """A recipe by path, by its preset's name, or by the name of the model that it made."""
    path = Path(text)
    zoo = default_zoo()
    if path.exists():
        return path
    if text in zoo.presets:
        return zoo.presets[text]
    if text in zoo.shelf:
        training = zoo.card(text).training
        if training is None:
            raise OptionError(f"the card of {text} names no recipe; give the path of a recipe.yaml")
        return zoo.root(text) / training.recipe
    if path.suffix not in (".yaml", ".yml"):
        raise UnknownName("recipe", text, {*zoo.presets, *zoo.shelf}, "(a file of your own ends in .yaml)")
    return path


class Stop:
    """Says yes once somebody asked the program to end, by SIGTERM or Ctrl-C, inside its block.

    A step that is half done is no state to save. So the first signal is only noted, for whoever asks between two
    steps; a second one acts as if the block were not there.

    Attributes:
        number: the signal that was noted; 0 for none.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.number = 0
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        self._former = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        return self.number != 0

    def _note(self, number: int, frame: Any) -> None:
        self.number = number
        self.__exit__()

    def act(self) -> None:
        """Do what the signal would have done."""
        if self.number == signal.SIGTERM:
            raise Terminated
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt


@click.command()
@click.argument("recipe")
@click.option("-o", "--out", required=True, type=FOLDER, help="Folder of the run.")
@data_option
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint in --out.")
@click.option("--time-limit", help="Stop after this long with a checkpoint: 90m, 1.5h.")
@device_option
def train(recipe: str, out: Path, data: str | None, resume: bool, time_limit: str | None, device: str) -> None:
    """Train by RECIPE, a YAML file, a preset or the name of a model that ships with one.

    --out gets checkpoints, log.jsonl, previews, and in the end model/, which every command takes in place of a name.
    Ctrl-C or SIGTERM ends it after the step under way, with a checkpoint that --resume goes on from.

    Several processes share every batch: torchrun --nproc-per-node 2 -m genzoo train RECIPE --out DIR
    """
    limit = parse_duration(time_limit) if time_limit else None
    zoo = default_zoo()
    from tqdm import tqdm

    from genzoo.distributed import joined
    from genzoo.train import read_recipe
    from genzoo.train import train as run

    file = read_recipe(recipe_path(recipe))
    reached = file.steps
    with joined(device) as world:
        quiet = None if world.first else True
        with Stop() as stop, tqdm(total=file.steps, unit="step", disable=quiet) as bar:
            events = run(file, out, zoo=zoo, data=data, resume=resume, time_limit=limit, stop=stop, world=world)
            for progress in events:
                reached = bar.n = progress.step
                shown = {key: f"{value:.4g}" for key, value in progress.values.items()}
                shown["images/s"] = f"{progress.images_per_second:.0f}"
                if progress.step % file.log_every == 0 or progress.step == file.steps:
                    bar.set_postfix(shown, refresh=False)
                    if bar.disable and world.first:
                        words = ", ".join(f"{key} {value}" for key, value in shown.items())
                        left = f"{progress.seconds_left / 60:.0f} min left"
                        click.echo(f"step {progress.step}/{progress.steps}: {words}, {left}")
                bar.refresh()
    if reached == file.steps:
        told = f"the result is in {out / 'model'}; try: genzoo generate {out / 'model'}"
    else:
        told = f"stopped at step {reached} of {file.steps}; go on with: genzoo train {recipe} --out {out} --resume"
    if world.first:
        click.echo(told)
    if reached < file.steps:
        stop.act()


COMMANDS = (train,)
