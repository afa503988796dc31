"""``genzoo train``: weights from a recipe."""

from __future__ import annotations

from pathlib import Path

import click

from genzoo.cli.arguments import parse_duration
from genzoo.errors import OptionError
from genzoo.registry import default_zoo


def recipe_path(text: str) -> Path:
    """A recipe by path, or by the name of the model that it made."""
    path = Path(text)
    zoo = default_zoo()
    if not path.exists() and text in zoo.shelf:
        training = zoo.card(text).training
        if training is None:
            raise OptionError(f"the card of {text} names no recipe; give the path of a recipe.yaml")
        return zoo.root(text) / training.recipe
    return path


@click.command()
@click.argument("recipe")
@click.option("-o", "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of the run.")
@click.option("--data", help="Where the data set lies, if not where its plugin looks.")
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint in --out.")
@click.option("--time-limit", help="Stop after this long with a checkpoint: 90m, 1.5h.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, mps.")
def train(recipe: str, out: Path, data: str | None, resume: bool, time_limit: str | None, device: str) -> None:
    """Train by RECIPE, a YAML file or the name of a model that ships with one.

    --out gets checkpoints, log.jsonl, previews, and in the end model/, which every command takes in place of a name.
    """
    limit = parse_duration(time_limit) if time_limit else None
    zoo = default_zoo()
    from tqdm import tqdm

    from genzoo.train import read_recipe
    from genzoo.train import train as run

    file = read_recipe(recipe_path(recipe))
    reached = 0
    with tqdm(total=file.steps, unit="step", disable=None) as bar:
        for progress in run(file, out, zoo=zoo, data=data, resume=resume, time_limit=limit, device=device):
            reached = progress.step
            bar.n = progress.step
            shown = {key: f"{value:.4g}" for key, value in progress.values.items()}
            if progress.step % file.log_every == 0 or progress.step == file.steps:
                bar.set_postfix({**shown, "images/s": f"{progress.images_per_second:.0f}"}, refresh=False)
                if bar.disable:
                    words = ", ".join(f"{key} {value}" for key, value in shown.items())
                    click.echo(
                        f"step {progress.step}/{progress.steps}: {words}, {progress.images_per_second:.0f} images/s, "
                        f"{progress.seconds_left / 60:.0f} min left"
                    )
            bar.refresh()
    if reached and reached < file.steps:
        click.echo(f"stopped at step {reached} of {file.steps}; go on with: genzoo train {recipe} --out {out} --resume")
    else:
        click.echo(f"the result is in {out / 'model'}; try: genzoo generate {out / 'model'}")


COMMANDS = (train,)
