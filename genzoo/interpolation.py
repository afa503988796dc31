"""The way from seed to seed: the stops on it, and the noise in between."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from genzoo.errors import OptionError
from genzoo.noise import Noise, check_seeds


class Stop(NamedTuple):
    """A place on the way: ``part`` in [0, 1) of it from the seed at position ``here`` to the one at ``there``."""

    here: int
    there: int
    part: float


def stops(count: int, frames: int, loop: bool = False) -> tuple[Stop, ...]:
    """The places of a film through ``count`` seeds with ``frames`` from one to the next.

    (count - 1) * frames + 1 of them, the last seed itself at the end; count * frames where a loop leads back to the
    first, which then does not stand there twice. Raises OptionError for fewer than two seeds, or no frames.
    """
    if count < 2:
        raise OptionError(f"{count} seeds; give two or more to go from one to the next")
    if frames < 1:
        raise OptionError(f"frames={frames}: give 1 or more")
    legs = count if loop else count - 1
    between = [Stop(leg, (leg + 1) % count, k / frames) for leg in range(legs) for k in range(frames)]
    return (*between, *(() if loop else (Stop(count - 1, count - 1, 0.0),)))


def slerp(a: Tensor, b: Tensor, part: float) -> Tensor:
    """Great-circle interpolation (K. Shoemake 1985), ``part`` in [0, 1] of the way from a to b, of any equal shape.

    Normal noise of many dimensions lies near a sphere, sqrt(D) from its centre, and knows no place inside: halfway on a
    straight line it would have 0.71 of its length, and a model would see noise that it never met in training. Along a
    line where a and b are (nearly) parallel.
    """
    cosine = (a * b).sum() / (a.norm() * b.norm()).clamp(min=1e-12)
    angle = float(torch.arccos(cosine.clamp(-1, 1)))
    if math.sin(angle) < 1e-4:
        return torch.lerp(a, b, part)
    return (math.sin((1 - part) * angle) * a + math.sin(part * angle) * b) / math.sin(angle)


class Way:
    """Initial noise at stops on the way from seed to seed, along great circles: a ``noise.Start`` of any shape.

    Args:
        seeds: in the order in which they are passed.
        places: where on the way each row lies.
    """

    def __init__(self, seeds: Sequence[int], places: Sequence[Stop]) -> None:
        self.seeds, self.places = check_seeds(seeds), tuple(places)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, rows: Sequence[int]) -> Way:
        return Way(self.seeds, [self.places[row] for row in rows])

    def draw(self, *shape: int) -> Tensor:
        """float32 (N, *shape); at a seed itself, exactly what that seed draws."""
        ends = Noise(self.seeds).normal(*shape)
        rows = [slerp(ends[here], ends[there], part) if part else ends[here] for here, there, part in self.places]
        return torch.stack(rows)
