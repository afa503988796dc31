"""One random stream per seed: sample i depends on seed i alone, never on the batch it sat in."""

from __future__ import annotations

import operator
import zlib
from collections.abc import Sequence
from functools import cached_property
from typing import Protocol, Self

import torch
from torch import Tensor

from genzoo.errors import OptionError, quoted

#: torch's CPU generator keeps 32 bits of a seed: s and s + 2**32 would be one stream, so larger seeds are refused.
SEED_LIMIT = 2**32


def check_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """``seeds`` as a tuple of plain ints in [0, 2**32); raises OptionError for anything else."""
    checked = []
    for seed in seeds:
        try:
            value = operator.index(seed)
        except TypeError:
            raise OptionError(f"a seed is an integer, not {quoted(seed)}") from None
        if isinstance(seed, bool):
            raise OptionError(f"a seed is an integer, not {quoted(seed)}")
        if not 0 <= value < SEED_LIMIT:
            raise OptionError(f"seed {value} is out of range; give 0 to {SEED_LIMIT - 1}")
        checked.append(value)
    return tuple(checked)


class Start(Protocol):
    """Initial noise that is drawn when its shape is known, as between two seeds."""

    def __len__(self) -> int:
        """How many rows there are."""

    def __getitem__(self, rows: list[int], /) -> Self:
        """These rows alone."""

    def draw(self, *shape: int) -> Tensor:
        """float32 (N, *shape)."""


class Noise:
    """The random numbers of a batch: row i of every draw comes from a CPU stream that belongs to ``seeds[i]`` alone.

    The first ``normal(C, H, W)`` of seed s equals ``torch.randn(1, C, H, W, generator=g)`` of a ``torch.Generator()`` g
    after ``g.manual_seed(s)``, so that other libraries' pictures can be repeated. Streams live on the CPU whatever the
    device, so that a picture starts from the same noise everywhere.

    Args:
        seeds: one integer in [0, 2**32) per sample.
        initial: (N, ...), or a ``Start``, replaces what ``start`` draws; the streams advance all the same.
        device, dtype: where and as what the numbers are delivered; they are drawn in float32.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        *,
        initial: Tensor | Start | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.seeds = check_seeds(seeds)
        self.device, self.dtype = torch.device(device), dtype
        self._initial = initial

    @cached_property
    def _streams(self) -> list[torch.Generator]:
        # Made for the first draw: to begin a stream takes as long as to draw some hundred numbers from it.
        return [torch.Generator().manual_seed(seed) for seed in self.seeds]

    def __len__(self) -> int:
        return len(self.seeds)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers of shape (N, *shape)."""
        out = torch.empty(len(self), *shape, dtype=torch.float32)
        # Row by row, as other libraries call ``torch.randn`` per image: so the numbers are the same.
        for row, stream in zip(out.unbind(), self._streams, strict=True):
            row.normal_(generator=stream)
        return out.to(self.device, self.dtype)

    @property
    def given(self) -> Tensor | None:
        """What the caller gave in place of the first draw: noise, or images to change."""
        return self._initial.to(self.device, self.dtype) if isinstance(self._initial, Tensor) else None

    def start(self, *shape: int) -> Tensor:
        """The initial noise (N, *shape): the caller's, where one was given, else the streams' first draw."""
        drawn = self.normal(*shape)
        if self._initial is None:
            return drawn
        given = self._initial if isinstance(self._initial, Tensor) else self._initial.draw(*shape)
        if given.shape != drawn.shape:
            raise OptionError(
                f"noise has shape {tuple(given.shape)}; this model needs {tuple(drawn.shape)} (one row a seed)"
            )
        return given.to(self.device, self.dtype)

    def choose(self, count: int, purpose: str) -> tuple[int, ...]:
        """One integer in [0, count) per seed, from a stream of its own, so that the pixels' streams do not move."""
        salt = zlib.crc32(purpose.encode())
        return tuple(
            int(torch.randint(count, (1,), generator=torch.Generator().manual_seed(seed ^ salt))) for seed in self.seeds
        )
