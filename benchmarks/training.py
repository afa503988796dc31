"""A training step of genzoo against one of the plain diffusers loop: same network, batch and precision, in turns.

python benchmarks/training.py                      the shipped model's recipe, float32 and bfloat16

genzoo's step is one of ``genzoo train``: with the order of the data, its batch made of bytes, its log and its checks.
The plain loop is that of diffusers' training example: UNet2DModel, DDPMScheduler.add_noise, mean squared error, AdamW,
gradient clipping and EMAModel; its batch costs it nothing, for it is always the same. Both draw their noise and times,
and keep an average of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import click
import diffusers
import torch
import torch.nn.functional as F
from diffusers.training_utils import EMAModel
from ratios import Clock, Ratio, Rows, interleaved

from genzoo.cli.train import recipe_path
from genzoo.frozen import Count, Frozen, Label, Seq
from genzoo.recipe import autocast
from genzoo.recipe_file import RecipeFile, read_recipe
from genzoo.registry import default_zoo
from genzoo.train import Progress, train

HERE = Path(__file__).parent

CPU = torch.device("cpu")

#: No checkpoint and no preview falls into what is timed.
NEVER = 10**9


class Step(Frozen):
    """One precision: how many times faster a step of genzoo is.

    Attributes:
        recipe: whose network and batch both train.
        precision: of both.
        batch: images a step.
        speedup: of the seconds of a step.
    """

    recipe: Label
    precision: Literal["fp32", "bf16"]
    batch: Count
    speedup: Ratio


class Steps(Rows):
    """All of a run."""

    format: Literal["genzoo.training-speed/1"] = "genzoo.training-speed/1"
    rows: Seq[Step]


def ours(file: RecipeFile, out: Path) -> Iterator[Progress]:
    """A run of ``genzoo train``, a step at a time."""
    return train(file, out, zoo=default_zoo())


def plain(file: RecipeFile) -> Callable[[], float]:
    """A step of the plain loop, with the recipe's network, on a batch that was folded before it."""
    settings = file.settings
    images = file.data.load(default_zoo(), "train")
    clean = F.pixel_unshuffle(images.floats(slice(file.batch)), settings["model"].get("patch", 1))
    labels = images.labels[: file.batch]
    torch.manual_seed(file.seed)
    network = diffusers.UNet2DModel(**described(settings["model"]["network"])).train()
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=1000)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings["rate"]["peak"], weight_decay=settings.get("weight_decay", 0.0)
    )
    average = EMAModel(network.parameters(), decay=settings["average"])

    def step() -> float:
        noise = torch.randn_like(clean)
        times = torch.randint(0, 1000, (len(clean),))
        noisy = scheduler.add_noise(clean, noise, times)
        kept = torch.where(torch.rand(len(clean)) < settings["condition_dropout"], len(images.classes), labels)
        with autocast(CPU, settings["precision"]):
            loss = F.mse_loss(network(noisy, times, class_labels=kept).sample.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.step(network.parameters())
        return float(loss.detach())

    return step


def described(network: dict[str, Any]) -> dict[str, Any]:
    """The recipe's network in diffusers' terms, whose keys it uses."""
    return {key: value for key, value in network.items() if key != "kind"}


def compare(file: RecipeFile, precision: Literal["fp32", "bf16"], repetitions: int, clock: Clock) -> Step:
    """Measure one precision."""
    settings = {**file.settings, "precision": precision}
    file = file.model_copy(update={"settings": settings, "checkpoint_every": NEVER, "preview_every": NEVER})
    with TemporaryDirectory() as folder:
        run = ours(file, Path(folder))
        speedup = interleaved(lambda: next(run), plain(file), repetitions, clock)
    return Step(recipe=file.name, precision=precision, batch=file.batch, speedup=speedup)


@click.command()
@click.argument("recipe", default="ddpm.fashion-mnist")
@click.option("--precision", "precisions", default="fp32,bf16", show_default=True)
@click.option("--batch", type=click.IntRange(min=1), help="Images a step, in place of the recipe's.")
@click.option("--repetitions", default=15, show_default=True, type=click.IntRange(min=3))
@click.option("--clock", default="wall", show_default=True, type=click.Choice(["wall", "process"]))
@click.option("-o", "--out", type=click.Path(path_type=Path), default=HERE / "results" / "training-speed.json")
def main(recipe: str, precisions: str, batch: int | None, repetitions: int, clock: Clock, out: Path) -> None:
    """Compare the training speed of genzoo and of a plain loop by RECIPE, one of a diffusion model with a U-Net."""
    file = read_recipe(recipe_path(recipe))
    if batch is not None:
        file = file.model_copy(update={"batch": batch})
    if file.recipe != "diffusion" or file.settings["model"]["network"]["kind"] != "unet":
        raise click.BadParameter(f"{recipe} trains no U-Net that diffusers has; name one that does: ddpm.fashion-mnist")
    wanted = precisions.split(",")
    if not {*wanted} <= {"fp32", "bf16"}:
        raise click.BadParameter(f"{precisions!r}: write fp32, bf16 or both as fp32,bf16", param_hint="--precision")
    rows = []
    for precision in wanted:
        row = compare(file, precision, repetitions, clock)  # type: ignore[arg-type]
        speed = row.speedup
        click.echo(
            f"{precision}, batch {row.batch}: {speed.value:.3f} times the plain loop "
            f"({speed.low:.3f} to {speed.high:.3f})"
        )
        rows.append(row)
    Steps.of(rows).write(out)


if __name__ == "__main__":
    main()
