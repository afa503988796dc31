"""``genzoo generate``: pictures from a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from genzoo.cli.arguments import check_count, command_line, sampling_options, sampling_values
from genzoo.registry import default_zoo

#: Pictures on the sheet.
GRID_LIMIT = 100


@click.command()
@click.argument("name")
@click.option("-n", "--count", default=16, show_default=True, help="How many pictures.")
@click.option("--seed", default=0, show_default=True, help="The first picture's seed; the others follow.")
@click.option("--label", "labels", multiple=True, help="A class, by name or number; several are taken in turn.")
@click.option("--dtype", help="float32, bfloat16, float16.")
@click.option(
    "-o", "--out", type=click.Path(file_okay=False, path_type=Path), help="A folder; by default the model's name."
)
@sampling_options
def generate(
    name: str,
    count: int,
    seed: int,
    labels: tuple[str, ...],
    dtype: str | None,
    out: Path | None,
    steps: int | None,
    scheduler: str | None,
    guidance: str | None,
    extra: tuple[str, ...],
    batch: int,
    device: str,
    exact: bool,
) -> None:
    """Write pictures of model NAME: one PNG a seed, named by it, and a sheet of them all.

    Each PNG holds the command, the card and the versions that made it.
    """
    from tqdm import tqdm

    check_count(count)
    given = sampling_values(steps, scheduler, guidance, extra)
    zoo = default_zoo()
    model = zoo.load(name, device=device, dtype=dtype)
    if labels:
        given["labels"] = [labels[i % len(labels)] for i in range(count)]
    from genzoo.bench import environment
    from genzoo.evaluate import checked, plain_options
    from genzoo.images import grid, save_png

    card = model.card
    folder = out or Path(card.name if card else name)
    seeds = list(range(seed, seed + count))
    chosen = model.options(**given)
    about = {
        "Software": "genzoo",
        "genzoo:command": command_line(),
        "genzoo:card": card.model_dump_json() if card else "{}",
        "genzoo:options": json.dumps(plain_options(chosen.model_dump(exclude={"labels"}))),
        "genzoo:versions": json.dumps(environment(device).versions),
    }
    shown: list[Any] = []
    written = 0
    with tqdm(total=count, unit="image", disable=None, leave=False) as bar:
        for images in model.batches(seeds, batch=batch, exact=exact, **given):
            for image in checked(images, model, name).cpu():
                number = seeds[written]
                label = {"genzoo:label": str(given["labels"][written])} if labels else {}
                save_png(folder / f"{number:010d}.png", image, {**about, "genzoo:seed": str(number), **label})
                if len(shown) < GRID_LIMIT:
                    shown.append(image)
                written += 1
                bar.update()
    import torch

    columns = min(10, max(1, round(len(shown) ** 0.5)))
    save_png(folder / "grid.png", grid(torch.stack(shown), columns=columns), about)
    click.echo(f"{written} pictures and grid.png in {folder}")


COMMANDS = (generate,)
