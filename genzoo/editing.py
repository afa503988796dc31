"""Editing: a given image, changed by the walk that would make one from noise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from genzoo.errors import OptionError, quoted
from genzoo.frozen import Frozen
from genzoo.noise import Noise
from genzoo.scheduler import Denoise, Grid, Level, Scheduler


@dataclass(frozen=True)
class Walk:
    """What an editor is given: one batch, and a model that is bound to its options.

    Images, masks and noise lie in the network's own arrangement, which may differ from that of pictures.

    Attributes:
        scheduler: the numerical method.
        grid: the part of its grid that is walked, see ``tail``.
        noise: the samples' random streams, whose first draw is ``start``.
        start: (N, ...) standard normal numbers.
        image: (N, ...) what is changed, in [-1, 1].
        mask: (N, ...) bool, True where it may change; None: everywhere.
        afresh: whether what may change begins as pure noise, as in generation, and not as the noised image.
        wanted: makes the denoiser of a walk over the grid, with the labels that were asked for, guidance and clipping.
        plain: makes the denoiser without guidance, under a label (a number or a name) or, for None, under none.
    """

    scheduler: Scheduler
    grid: Grid
    noise: Noise
    start: Tensor
    image: Tensor
    mask: Tensor | None
    afresh: bool
    wanted: Callable[[], Denoise]
    plain: Callable[[int | str | None], Denoise]

    def begin(self) -> Tensor:
        """x at the grid's first level: the noised image, or pure noise where a walk afresh may change it."""
        level = self.grid.levels[0]
        noised = self.image.mul(level.alpha).add_(self.start, alpha=level.sigma)
        if not self.afresh:
            return noised
        made = self.scheduler.begin(self.start, self.grid)
        return made if self.mask is None else torch.where(self.mask, made, noised)

    def keep(self, denoise: Denoise) -> Denoise:
        """The denoiser that knows the pixels outside the mask: its x_0 there is the image itself.

        Whatever the scheduler, x_t then stays on its level there: alpha x_0 + sigma eps with the eps it began with,
        where the method adds no noise, and a draw of q(x_s | x_t, x_0) where it is ancestral.
        """
        mask, image = self.mask, self.image
        return denoise if mask is None else lambda x, t: torch.where(mask, denoise(x, t), image)


class Editor(Frozen, ABC):
    """A way to change images. Frozen: its fields are settings."""

    @abstractmethod
    def edit(self, walk: Walk) -> Iterator[Tensor]:
        """Yield x after every step; the last is the changed image. Pixels outside the mask are put back by the caller.

        Raises OptionError where the walk does not allow it.
        """

    def usual_strength(self, masked: bool) -> float:
        """The strength where none was asked for."""
        return 1.0


@dataclass(frozen=True)
class Edit:
    """What to change, and how.

    Attributes:
        images: float32 (N, C, H, W) in [-1, 1].
        mask: bool (N, 1, H, W), True where an image may change; None: everywhere.
        strength: 0 (not at all) to 1 (as much as the method can), the share of the walk's time that is walked.
        editor: the method.
    """

    images: Tensor
    mask: Tensor | None
    strength: float
    editor: Editor

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, index: Sequence[int]) -> Edit:
        """The edit of some of its images."""
        rows = torch.tensor(index)
        return replace(self, images=self.images[rows], mask=None if self.mask is None else self.mask[rows])

    def spread(self, count: int) -> Edit:
        """One image for ``count`` samples, or ``count`` of them."""
        if len(self) not in (1, count):
            raise OptionError(f"{len(self)} images for {count} seeds; give one image, or one per seed")
        return self.rows([0] * count) if len(self) == 1 else self

    def kept(self, changed: Tensor) -> Tensor:
        """Changed images, (n, C, H, W) for the first n rows, with the pixels outside the mask as they were, exactly."""
        if self.mask is None:
            return changed
        rows = slice(len(changed))
        return torch.where(self.mask[rows].to(changed.device), changed, self.images[rows].to(changed))


def tail(grid: Grid, strength: float) -> Grid | None:
    """The end of a grid, from the level nearest to ``strength`` times its first time; None where that is its last.

    On the grid's own levels, so that a model that knows certain times only is asked for no other.
    """
    wanted = strength * grid.times[0]
    first = min(range(len(grid.levels)), key=lambda i: abs(grid.times[i] - wanted))
    # By time: a grid may end with a step in place, and where nothing is left to walk nothing changes.
    return replace(grid, levels=grid.levels[first:]) if grid.times[first] > grid.times[-1] else None


def renoise(x: Tensor, here: Level, there: Level, noise: Noise) -> Tensor:
    """x at a noisier level: (alpha' / alpha) x + sqrt(sigma'^2 - (alpha' sigma / alpha)^2) z, the forward process."""
    ratio = there.alpha / here.alpha
    added = max(there.sigma**2 - (ratio * here.sigma) ** 2, 0.0) ** 0.5
    return x.mul(ratio).add_(noise.normal(*x.shape[1:]), alpha=added)


#: The keywords of ``Generator.generate`` that make an edit of it.
KEYWORDS = ("image", "mask", "strength", "method")


def read_edit(
    given: dict[str, Any], own: Collection[str], shape: tuple[int, int, int], make: Callable[[str], Editor]
) -> Edit | None:
    """The edit that ``generate`` is asked for, whose keywords are taken out of ``given``; None for none.

    Args:
        given: ``image`` (C, H, W) or (N, C, H, W) in [-1, 1]; ``mask`` (H, W), (1, H, W) or (N, 1, H, W), 1 or True
            where it may change; ``strength``; ``method``, an Editor or the text that ``make`` makes one of.
        own: the model's own options, whose names mean what the model says they mean.
        shape: (C, H, W) of the model.
        make: "repaint:resamplings=5" -> an Editor.
    """
    image, mask, strength, method = (None if key in own else given.pop(key, None) for key in KEYWORDS)
    if image is None:
        if mask is not None or strength is not None or method is not None:
            raise OptionError("mask, strength and method say how an image is changed; give image= as well")
        return None
    images = _batched("image", _tensor("image", image), shape)
    if not images.is_floating_point() or not bool((images.abs() <= 1).all()):
        raise OptionError("image must hold floats in [-1, 1]; genzoo.images.to_floats makes them of bytes")
    chosen = None if mask is None else _mask(_tensor("mask", mask), shape, len(images))
    method = method or ("sdedit" if mask is None else "repaint")
    editor = method if isinstance(method, Editor) else make(str(method))
    strength = editor.usual_strength(mask is not None) if strength is None else strength
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 <= strength <= 1:
        raise OptionError(f"strength={quoted(strength)} is out of range; give 0 (the image) to 1")
    return Edit(images.float(), chosen, float(strength), editor)


def _tensor(name: str, given: Any) -> Tensor:
    try:
        return torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):
        raise OptionError(f"{name} is a {type(given).__name__}; give a tensor or an array") from None


def _batched(name: str, given: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """(C, H, W) as (1, C, H, W)."""
    batched = given[None] if given.ndim == 3 else given
    if batched.ndim != 4 or tuple(batched.shape[1:]) != shape or not len(batched):
        raise OptionError(f"{name} has shape {tuple(given.shape)}; this model needs {shape}, or (N, {shape[0]}, H, W)")
    return batched


def _mask(given: Tensor, shape: tuple[int, int, int], count: int) -> Tensor:
    mask = _batched("mask", given[None] if given.ndim == 2 else given, (1, *shape[1:]))
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise OptionError("mask must hold 0 (keep) and 1 (change) only")
    if len(mask) not in (1, count):
        raise OptionError(f"{len(mask)} masks for {count} images; give one, or one per image")
    return mask.bool().expand(count, -1, -1, -1)
