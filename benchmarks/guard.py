"""A guard against slow changes: ratios to a fixed baseline, measured in turns in one run; never absolute times.

python benchmarks/guard.py

The baseline is written here in plain torch and never changes: the residual blocks of a small diffusion network in
``nn`` modules. A library that grows slower while the baseline stays where it is fails, on any machine, busy or not.
"""

from __future__ import annotations

import sys
from typing import Any

import click
import torch
from ratios import Ratio, interleaved
from torch import Tensor, nn

from genzoo.registry import default_zoo

#: Seconds of the baseline below over seconds of the shipped model's walk, and of its forward passes alone: as measured
#: on one thread of an AMD EPYC with AVX-512, in process time. ``MARGIN`` of them must be reached on any machine.
FLOORS = {"walk": 0.80, "network": 0.78}
MARGIN = 0.8

CHANNELS, SIZE, BLOCKS, IMAGES, STEPS = 64, 14, 12, 16, 10


class Block(nn.Module):
    """A residual block as anybody would write it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, CHANNELS), nn.SiLU(), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
            nn.GroupNorm(8, CHANNELS), nn.SiLU(), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def baseline() -> Any:
    """A call of fixed work."""
    torch.manual_seed(0)
    network = nn.Sequential(*(Block() for _ in range(BLOCKS))).eval().requires_grad_(False)
    network = network.to(memory_format=torch.channels_last)
    x = torch.randn(IMAGES, CHANNELS, SIZE, SIZE).contiguous(memory_format=torch.channels_last)

    def run() -> None:
        with torch.inference_mode():
            for _ in range(STEPS):
                network(x)

    return run


def measure(repetitions: int = 7) -> dict[str, Ratio]:
    """The ratios that are guarded: above 1, we are faster than the baseline."""
    model = default_zoo().load("ddpm.fashion-mnist")
    fixed = baseline()
    network = model.denoiser.network  # type: ignore[union-attr]
    x = torch.randn(IMAGES, 4, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(IMAGES) % 10

    def walk() -> None:
        model.generate(range(IMAGES), batch=IMAGES, steps=STEPS, guidance=1)

    def passes() -> None:
        with torch.inference_mode():
            for _ in range(STEPS):
                network(x, torch.tensor(500.0), class_labels=labels)

    return {
        "walk": interleaved(walk, fixed, repetitions, "process"),
        "network": interleaved(passes, fixed, repetitions, "process"),
    }


def fallen(found: dict[str, Ratio]) -> list[str]:
    """The ratios that fell below their floor, in words. The upper end of the interval: a noisy run is no regression."""
    return [
        f"{name}: {ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f}), below {MARGIN * FLOORS[name]:.3f}"
        for name, ratio in found.items()
        if ratio.high < MARGIN * FLOORS[name]
    ]


@click.command()
@click.option("--repetitions", default=15, show_default=True, type=click.IntRange(min=3))
def main(repetitions: int) -> None:
    """Compare with the baseline; exit code 1 where something grew slower."""
    torch.set_num_threads(1)
    found = measure(repetitions)
    for name, ratio in found.items():
        click.echo(
            f"{name}: {ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f}), floor {MARGIN * FLOORS[name]:.3f}"
        )
    slower = fallen(found)
    for text in slower:
        click.echo(f"slower: {text}", err=True)
    sys.exit(1 if slower else 0)


if __name__ == "__main__":
    main()
