"""The ways to change an image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from genzoo.editing import Editor, Walk, renoise
from genzoo.errors import OptionError
from genzoo.scheduler import Denoise, Grid, Level


class SDEdit(Editor):
    """The image, noised to a level and walked back from there (Meng et al. 2022, algorithm 1).

    With a mask it is inpainting by replacement (Song et al. 2021, appendix I.2): what is known stands on its level
    throughout, and is replaced in every estimate. The strength is the level: 1 forgets what the image was where it may
    change.
    """

    def edit(self, walk: Walk) -> Iterator[Tensor]:
        yield from walk.scheduler.walk(walk.keep(walk.wanted()), walk.begin(), walk.grid, walk.noise)

    def usual_strength(self, masked: bool) -> float:
        return 1.0 if masked else 0.6


class RePaint(Editor):
    """Inpainting with resampling (Lugmayr et al. 2022, algorithm 1 and section 4.2).

    The walk is cut into stretches of ``jump`` steps. From the end of each it is noised back to where it began and
    walked again, ``resamplings`` times in all: so what was made learns what it must fit to. One resampling is
    replacement. A multistep scheduler starts anew with each stretch. It costs ``resamplings`` times the evaluations of
    all steps but the last.

    The last step, to clean data, is walked once, as in the paper ("if u < U and t > 1"): it gives the mean of what the
    image may be, and the mean of the noised mean, again and again, would end in a mode.

    Every walk over a stretch repeats the scheduler's own error. Of a mixture whose conditional is known, 20 resamplings
    of 100 steps have mean and deviation right with ``ddpm:variance=large``; ddpm's small variance, which leaves out
    what is not known of x_0, gives 0.7 of the deviation.
    """

    resamplings: Annotated[int, Field(ge=1, le=1000, description="walks over each stretch, 10 in the paper")] = 10
    jump: Annotated[int, Field(ge=1, le=1000, description="steps of a stretch, 10 of 250 in the paper")] = 1

    def edit(self, walk: Walk) -> Iterator[Tensor]:
        if walk.mask is None:
            raise OptionError("repaint fills what a mask says: give a mask, or method=sdedit")
        denoise, x = walk.keep(walk.wanted()), walk.begin()
        for stretch, times in self.stretches(walk.grid):
            for left in reversed(range(times)):
                for after in walk.scheduler.walk(denoise, x, stretch, walk.noise):
                    yield after
                x = renoise(after, stretch.levels[-1], stretch.levels[0], walk.noise) if left else after

    def stretches(self, grid: Grid) -> Iterator[tuple[Grid, int]]:
        """The stretches of a grid, with how often each is walked."""
        if self.resamplings == 1:
            yield grid, 1
            return
        last = len(grid.levels) - 2
        for first in range(0, last, self.jump):
            yield replace(grid, levels=grid.levels[first : min(first + self.jump, last) + 1]), self.resamplings
        yield replace(grid, levels=grid.levels[last:]), 1


class Inversion(Editor):
    """To the noise that the image comes from, and back under what is wanted (Song, Meng & Ermon 2021, section 4.3).

    The way there has neither guidance nor the wanted label, but ``source``, what the image shows (Mokady et al. 2023,
    section 3.1). The way back must add no noise. With the strength below 1 both ways are shorter.
    """

    source: Annotated[int | str | None, Field(description="label of the image; null: that for no class")] = None
    iterations: Annotated[int, Field(ge=1, le=1000, description="evaluations a step, to its exact inverse")] = 1
    order: Annotated[Literal[1, 2], Field(description="1: the inverse of ddim; 2: the trapezoidal rule")] = 1
    reconstruct: Annotated[bool, Field(description="go back as it came, to see what is lost")] = False

    def edit(self, walk: Walk) -> Iterator[Tensor]:
        if walk.scheduler.draws(walk.grid):
            raise OptionError(
                f"{type(walk.scheduler).__name__} adds noise on its way, so it does not lead back to what was "
                "inverted; name a scheduler that adds none, as ddim or heun"
            )
        plain = walk.plain(self.source)
        x = inverted(plain, walk.image, walk.grid, iterations=self.iterations, order=self.order)
        back = walk.keep(plain if self.reconstruct else walk.wanted())
        yield from walk.scheduler.walk(back, x, walk.grid, walk.noise)


def inverted(denoise: Denoise, image: Tensor, grid: Grid, *, iterations: int = 1, order: int = 1) -> Tensor:
    """x at the grid's first level, from which the probability flow leads to ``image`` at its last.

    DDIM's step (Song, Meng & Ermon 2021, eq. 12) solved for where it came from: x_t = (alpha_t / alpha_s) x_s +
    (sigma_t - sigma_s alpha_t / alpha_s) eps, with eps of x_t, which is found by fixed-point iteration (Pan et al.
    2023) from the eps of the step before. Until it settles that is the exact inverse; one iteration is of first order
    already. ``order`` 2 takes the mean of the eps of both ends, the trapezoidal rule in sigma / alpha.
    """
    x, eps = image, None  # of clean data there is none yet
    for there, here in zip(reversed(grid.levels[1:]), reversed(grid.levels[:-1]), strict=True):
        before, guess = eps, _risen(x, eps, there, here)
        for _ in range(iterations):
            eps = guess.sub(denoise(guess, here.t), alpha=here.alpha).div_(here.sigma)
            guess = _risen(x, eps if order == 1 or before is None else eps.lerp(before, 0.5), there, here)
        x = guess
    return x


def _risen(x: Tensor, eps: Tensor | None, here: Level, there: Level) -> Tensor:
    """x at the noisier level ``there``, for a constant eps; None: for an eps of 0."""
    ratio = there.alpha / here.alpha
    out = x.mul(ratio)
    return out if eps is None else out.add_(eps, alpha=there.sigma - here.sigma * ratio)
