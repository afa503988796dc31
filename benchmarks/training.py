"""A training step of genzoo against one of the plain diffusers loop: same network, batch and precision, in turns.

python benchmarks/training.py                      the shipped recipe's network, batch 128, float32 and bfloat16

The plain loop is that of diffusers' training example: UNet2DModel, DDPMScheduler.add_noise, mean squared error, AdamW,
gradient clipping and EMAModel. Both draw their noise and times, and keep an average of the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import click
import diffusers
import torch
import torch.nn.functional as F
from diffusers.training_utils import EMAModel
from ratios import Clock, Ratio, Rows, interleaved

from genzoo.data import Images
from genzoo.frozen import Count, Frozen, Seq
from genzoo.recipe import Batch, autocast
from genzoo.registry import default_zoo

HERE = Path(__file__).parent

#: The shipped network in diffusers' terms, on its folded images.
NETWORK = {
    "sample_size": 14, "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "block_out_channels": (48, 96),
    "attention_head_dim": 32, "norm_num_groups": 8, "num_class_embeds": 11,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip

CPU = torch.device("cpu")


class Step(Frozen):
    """One precision: how many times faster a step of genzoo is."""

    precision: Literal["fp32", "bf16"]
    batch: Count
    speedup: Ratio


class Steps(Rows):
    """All of a run."""

    format: Literal["genzoo.training-speed/1"] = "genzoo.training-speed/1"
    rows: Seq[Step]


def ours(images: torch.Tensor, labels: torch.Tensor, precision: str) -> Callable[[], object]:
    """A step of the diffusion recipe."""
    family = default_zoo().find("recipe", "diffusion")
    network = {"kind": "unet", **{key: list(v) if isinstance(v, tuple) else v for key, v in NETWORK.items()}}
    model = {"network": network, "patch": 2, "num_classes": 10}
    settings = {"model": model, "rate": {"peak": 1e-3}, "precision": precision}
    names = tuple(str(i) for i in range(10))
    pixels = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    data = Images(pixels, torch.zeros(1, dtype=torch.int64), names, "noise", "train")
    recipe = family(family.Config(**settings), data, steps=1000, device=CPU)
    stream, batch = torch.Generator().manual_seed(0), Batch(images, labels, 0)
    return lambda: recipe.step(batch, stream)


def plain(images: torch.Tensor, labels: torch.Tensor, precision: str) -> Callable[[], object]:
    """A step of the plain loop, on images that were folded before it."""
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(**NETWORK).train()
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=1000)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    average = EMAModel(network.parameters(), decay=0.999)
    clean = F.pixel_unshuffle(images, 2)

    def step() -> float:
        noise = torch.randn_like(clean)
        times = torch.randint(0, 1000, (len(clean),))
        noisy = scheduler.add_noise(clean, noise, times)
        kept = torch.where(torch.rand(len(clean)) < 0.1, 10, labels)
        with autocast(CPU, precision):
            loss = F.mse_loss(network(noisy, times, class_labels=kept).sample.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.step(network.parameters())
        return float(loss.detach())

    return step


def compare(precision: Literal["fp32", "bf16"], batch: int, repetitions: int, clock: Clock) -> Step:
    """Measure one precision."""
    stream = torch.Generator().manual_seed(1)
    images = torch.rand(batch, 1, 28, 28, generator=stream) * 2 - 1
    labels = torch.randint(0, 10, (batch,), generator=stream)
    speedup = interleaved(ours(images, labels, precision), plain(images, labels, precision), repetitions, clock)
    return Step(precision=precision, batch=batch, speedup=speedup)


@click.command()
@click.option("--precision", "precisions", default="fp32,bf16", show_default=True)
@click.option("--batch", default=128, show_default=True, type=click.IntRange(min=1))
@click.option("--repetitions", default=15, show_default=True, type=click.IntRange(min=3))
@click.option("--clock", default="wall", show_default=True, type=click.Choice(["wall", "process"]))
@click.option("-o", "--out", type=click.Path(path_type=Path), default=HERE / "results" / "training-speed.json")
def main(precisions: str, batch: int, repetitions: int, clock: Clock, out: Path) -> None:
    """Compare the training speed of genzoo and of a plain loop."""
    rows = []
    for precision in precisions.split(","):
        if precision not in ("fp32", "bf16"):
            raise click.BadParameter(f"{precision!r}: write fp32, bf16 or both", param_hint="--precision")
        row = compare(precision, batch, repetitions, clock)  # type: ignore[arg-type]
        speed = row.speedup
        click.echo(
            f"{precision}, batch {batch}: {speed.value:.3f} times the plain loop ({speed.low:.3f} to {speed.high:.3f})"
        )
        rows.append(row)
    Steps.of(rows).write(out)


if __name__ == "__main__":
    main()
