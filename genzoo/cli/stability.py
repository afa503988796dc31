"""``genzoo stability``: families trained from several seeds."""

from __future__ import annotations

from pathlib import Path

import click

from genzoo.cli.arguments import FOLDER, command_line, data_option, device_option, parse_seeds
from genzoo.cli.progress import watched
from genzoo.cli.report import check_folder, write
from genzoo.cli.train import recipe_path
from genzoo.registry import default_zoo


@click.command()
@click.argument("recipes", nargs=-1)
@click.option("--seeds", default="0,1,2", show_default=True, help="Of the runs of each family, as 0-4 or 3,5,9.")
@click.option("-o", "--out", required=True, type=FOLDER, help="Folder of the runs, the record and its report.")
@data_option
@click.option("--resume", is_flag=True, help="Go on with what --out holds; further seeds and recipes join it.")
@device_option
def stability(recipes: tuple[str, ...], seeds: str, out: Path, data: str | None, resume: bool, device: str) -> None:
    """Train families alike from several seeds, and tell how their runs ended.

    RECIPES are presets (see genzoo plugins), recipe files or models that ship with a recipe; by default all presets.
    The built-in presets take about the same time each on the processor that their files name; they state steps, so
    that anybody repeats the same runs. --out gets runs/, stability.json, which genzoo report takes, and a report.
    """
    check_folder(out)
    chosen = parse_seeds(seeds)
    zoo = default_zoo()
    from tqdm import tqdm

    from genzoo.recipe_file import read_recipe
    from genzoo.runs import DISTANCE
    from genzoo.stability import Request, Study

    files = [read_recipe(recipe_path(text)) for text in recipes or sorted(zoo.presets)]
    study = Study(zoo, Request(files, chosen, out, data, resume, device, command_line()))
    for event in watched(study.run(), "step"):
        if event.ended is not None:
            final, why = event.ended.final(), event.ended.collapsed
            distance = "no distance" if final is None else f"distance {final:.3g}"
            tqdm.write(f"{event.what}: {distance}{f', collapsed: {why}' if why else ''}")
    write([study.record], out, DISTANCE)


COMMANDS = (stability,)
