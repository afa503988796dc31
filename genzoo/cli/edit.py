"""``genzoo edit``: a picture, changed by a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genzoo.cli.arguments import Sampling, check_count, sampling_options, seed_option
from genzoo.cli.generate import COLUMNS, provenance
from genzoo.errors import OptionError
from genzoo.registry import default_zoo

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.editing import Editor

PICTURE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("name")
@click.option("--image", required=True, type=PICTURE, help="A PNG of the model's size.")
@click.option("--mask", type=PICTURE, help="A PNG of the same size: white may change, black is kept to the last bit.")
@click.option("--strength", type=float, help="0 (the image) to 1; by default what suits the method.")
@click.option(
    "--method",
    help="sdedit (by default), repaint (by default with a mask) or inversion; with options as repaint:resamplings=5 or "
    "inversion:source=3.",
)
@click.option("--label", help="What it is to become: a class, by name or number.")
@click.option("-n", "--count", default=1, show_default=True, help="How many versions, side by side.")
@seed_option
@click.option("-o", "--out", required=True, type=PICTURE, help="The PNG to write.")
@sampling_options()
def edit(
    name: str,
    image: Path,
    mask: Path | None,
    strength: float | None,
    method: str | None,
    label: str | None,
    count: int,
    seed: int,
    out: Path,
    sampling: Sampling,
) -> None:
    """Change the picture --image by model NAME.

    Anew from a noised copy (sdedit), inside a mask (repaint), or by way of the noise that it comes from (inversion).
    """
    check_count(count)
    if out.suffix.lower() != ".png":
        raise OptionError(f"--out {out}: a picture is written as PNG; give a file named .png")
    zoo = default_zoo()
    model = sampling.load(name)
    if model.num_classes and label is None:
        raise OptionError(f"{name} makes one class at a time; give --label: {', '.join(model.classes)}")
    from genzoo.files import sha256_of
    from genzoo.images import grid, read_png, save_png, to_floats
    from genzoo.spec import describe

    channels, height, width = model.shape
    picture = to_floats(read_png(image, (channels, height, width)))
    changeable = None if mask is None else read_png(mask, (1, height, width)) >= 128
    editor: Editor = zoo.make("editor", method or ("sdedit" if mask is None else "repaint"))
    strength = editor.usual_strength(mask is not None) if strength is None else strength
    about = provenance(model, sampling)
    about["genzoo:edit"] = json.dumps(
        {"image": sha256_of(image), "method": describe(editor, zoo), "strength": strength, "label": label, "seed": seed}
    )
    asked = sampling.asking(image=picture, mask=changeable, strength=strength, method=editor, labels=label)
    changed = model.generate(range(seed, seed + count), **asked.call)
    save_png(out, grid(changed, columns=COLUMNS) if count > 1 else changed[0], about)
    click.echo(f"{count} {'version' if count == 1 else 'versions'} of {image} in {out}")
    if "reconstruct" in type(editor).model_fields:
        back = editor.model_copy(update={"reconstruct": True})
        click.echo(_loss(picture, model.generate([seed], **asked.asking(method=back, mask=None).call)[0]))


def _loss(picture: Tensor, back: Tensor) -> str:
    """How far the way back from a picture's noise, as it came, ends from the picture, both (C, H, W) in [-1, 1]."""
    off = back - picture
    error, worst = float(off.square().mean().sqrt()), float(off.abs().max())
    return f"reconstruction error {error:.4f} (root mean square of [-1, 1]), at most {worst:.4f} in a pixel"


COMMANDS = (edit,)
