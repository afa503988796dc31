"""``genzoo generate``: pictures from a model, the way from one to the next, and how they come into being."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genzoo.cli.arguments import (
    Sampling,
    check_count,
    command_line,
    labels_option,
    parse_seeds,
    sampling_options,
    seed_option,
)
from genzoo.errors import OptionError
from genzoo.registry import default_zoo

if TYPE_CHECKING:
    from genzoo.generator import Generator

#: Pictures on the sheet.
GRID_LIMIT = 100

#: Frames from one seed to the next.
FRAMES = 24

#: Pictures in a row of a sheet.
COLUMNS = 10


@click.command()
@click.argument("name")
@click.option("-n", "--count", default=16, show_default=True, help="How many pictures.")
@seed_option
@click.option("--seeds", help="In place of -n and --seed: 0-99, 3,8,15 or a mixture.")
@labels_option
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="A folder, by default the model's name; with --interpolate or --trajectory a file.",
)
@click.option("--interpolate", is_flag=True, help="A film from seed to seed: -o FILE.gif or FILE.png.")
@click.option("--loop", is_flag=True, help="With --interpolate: back to the first seed in the end.")
@click.option(
    "--trajectory",
    is_flag=True,
    help="How the pictures come into being: a sheet of steps, a row a seed, as -o FILE.png; a film as FILE.gif.",
)
@click.option(
    "--frames",
    type=click.IntRange(1, 10_000),
    help=f"From one seed to the next ({FRAMES}); steps in a row of a trajectory ({COLUMNS}).",
)
@sampling_options()
def generate(
    name: str,
    count: int,
    seed: int,
    seeds: str | None,
    labels: tuple[str, ...],
    out: Path | None,
    interpolate: bool,
    loop: bool,
    trajectory: bool,
    frames: int | None,
    sampling: Sampling,
) -> None:
    """Write pictures of model NAME: one PNG a seed, named by it, and a sheet of them all.

    Each PNG holds the command, the card and the versions that made it. --interpolate writes a film from seed to seed
    instead, and --trajectory the steps by which a diffusion model came to its pictures.
    """
    check_count(count)
    chosen = parse_seeds(seeds) if seeds else list(range(seed, seed + count))
    if labels:
        sampling = sampling.asking(labels=[labels[i % len(labels)] for i in range(len(chosen))])
    one_film = interpolate or trajectory
    _check_film(interpolate, loop, trajectory, frames, out)
    if not one_film and out is not None and out.is_file():
        raise OptionError(f"--out {out} is a file; give a folder")
    model = sampling.load(name)
    if not one_film or out is None:
        _pictures(model, name, out or Path(model.card.name if model.card else name), chosen, sampling)
    elif interpolate:
        _film(model, out, chosen, sampling, frames or FRAMES, loop)
    else:
        _trajectory(model, out, chosen, sampling, frames or COLUMNS)


def _check_film(interpolate: bool, loop: bool, trajectory: bool, frames: int | None, out: Path | None) -> None:
    """Refuse options that mean nothing together, before a model is loaded."""
    if interpolate and trajectory:
        raise OptionError("--interpolate and --trajectory make one film each; give one of them")
    if loop and not interpolate:
        raise OptionError("--loop is for --interpolate; give both")
    if not (interpolate or trajectory):
        if frames is not None:
            raise OptionError("--frames is for --interpolate and --trajectory; give one of them")
        return
    if out is None or out.suffix.lower() not in (".gif", ".png", ".apng"):
        raise OptionError("a film needs a file: give -o FILE.gif or -o FILE.png")


def provenance(model: Generator, sampling: Sampling) -> dict[str, str]:
    """What a picture tells of how it was made."""
    from genzoo.bench import environment
    from genzoo.spec import plain_options

    card = model.card
    return {
        "Software": "genzoo",
        "genzoo:command": command_line(),
        "genzoo:card": card.model_dump_json() if card else "{}",
        "genzoo:options": json.dumps(plain_options(model.options(**sampling.options), default_zoo())),
        "genzoo:versions": json.dumps(environment(sampling.device).versions),
    }


def _pictures(model: Generator, name: str, folder: Path, seeds: list[int], sampling: Sampling) -> None:
    """One PNG a seed, and a sheet."""
    import torch
    from tqdm import tqdm

    from genzoo.evaluate import checked
    from genzoo.images import grid, save_png

    about, labels = provenance(model, sampling), sampling.options.get("labels")
    shown: list[Any] = []
    written = 0
    with tqdm(total=len(seeds), unit="image", disable=None, leave=False) as bar:
        for images in model.batches(seeds, **sampling.call):
            for image in checked(images, model, name).cpu():
                number = seeds[written]
                label = {"genzoo:label": str(labels[written])} if isinstance(labels, list) else {}
                save_png(folder / f"{number:010d}.png", image, {**about, "genzoo:seed": str(number), **label})
                if len(shown) < GRID_LIMIT:
                    shown.append(image)
                written += 1
                bar.update()
    columns = min(COLUMNS, max(1, round(len(shown) ** 0.5)))
    save_png(folder / "grid.png", grid(torch.stack(shown), columns=columns), about)
    click.echo(f"{written} pictures and grid.png in {folder}")


def _film(model: Generator, path: Path, seeds: list[int], sampling: Sampling, frames: int, loop: bool) -> None:
    """The way from seed to seed."""
    from genzoo.images import save_animation

    # The space is the way's between two pictures, and no option of theirs.
    options = {key: value for key, value in sampling.options.items() if key != "space"}
    about = provenance(model, dataclasses.replace(sampling, options=options))
    film = model.interpolate(seeds, frames, loop=loop, **sampling.call)
    save_animation(path, film, about)
    click.echo(f"{len(film)} frames in {path}")


def _trajectory(model: Generator, path: Path, seeds: list[int], sampling: Sampling, columns: int) -> None:
    """How pictures come into being: some steps side by side, a row a seed; or all of them one after the other."""
    import torch

    from genzoo.images import grid, save_animation, save_png, to_bytes

    about, walks = provenance(model, sampling), model.trajectories(seeds, **sampling.call)
    # (steps, seeds, C, H, W)
    states = torch.cat([torch.stack([to_bytes(images).cpu() for images in walk]) for walk in walks], dim=1)
    if len(states) == 1:
        raise OptionError("this model makes its pictures in one step; --trajectory shows the steps of one that walks")
    if path.suffix.lower() == ".png":
        shown = torch.linspace(0, len(states) - 1, min(columns, len(states))).round().long()
        save_png(path, grid(states[shown].transpose(0, 1).flatten(0, 1), columns=len(shown)), about)
        click.echo(f"{len(shown)} of {len(states)} steps of {len(seeds)} pictures in {path}")
        return
    side = round(len(seeds) ** 0.5)
    save_animation(path, torch.stack([grid(images, columns=side) for images in states]), about)
    click.echo(f"{len(states)} steps of {len(seeds)} pictures in {path}")


COMMANDS = (generate,)
