"""Guidances by contrast that grew out of classifier-free guidance."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, Field, PrivateAttr
from torch import Tensor

from genzoo.contrast import ClassifierFree, Contrast, Mix
from genzoo.denoiser import Condition, Denoiser, target, to_x0
from genzoo.errors import OptionError
from genzoo.frozen import Seq
from genzoo.guidance import Guidance
from genzoo.scheduler import Denoise, Grid, Level


def per_sample(values: Tensor) -> Tensor:
    """(N, ...) -> (N, D)."""
    return values.flatten(1)


def at_length(values: Tensor) -> Tensor:
    """(N, ...) -> (N, D), float32 at least: the squares of an image of 512 x 512 add up to more than float16 holds."""
    return per_sample(values if values.dtype == torch.float64 else values.float())


def beside(values: Tensor, x: Tensor) -> Tensor:
    """(N,) -> (N, 1, ...), to multiply x by."""
    return values.reshape(-1, *(1,) * (x.ndim - 1))


def classes_of(denoiser: Denoiser) -> int | None:
    """How many classes a network tells apart, the one for "no class" among them; None where it does not say."""
    config = getattr(denoiser.network, "config", None)
    return None if config is None else getattr(config, "num_class_embeds", None) or 0


class Rescaled(Contrast):
    """Rescaled classifier-free guidance (Lin et al. 2024, eq. 15 and 16).

    The guided prediction gets the standard deviation of the conditional one, per sample, by the share ``rescale``. It
    acts on what the network predicts, as in the paper; rescale 0 is classifier-free guidance.
    """

    rescale: Annotated[float, Field(ge=0, le=1, description="share of the rescaled prediction, 0.7 in the paper")] = 0.7

    def __call__(self, denoiser: Denoiser, condition: Condition, null: Condition | None) -> Denoise:
        if self.scale == 1 or self.rescale == 0:
            return self._unscaled(denoiser, condition, null)
        told = (denoiser.prediction, denoiser.spread)
        both = self.mixed(denoiser, condition, self.opposite(condition, null))

        def guided(x: Tensor, t: float) -> Tensor:
            alpha, sigma = denoiser.schedule.level(t)
            free, wanted = both(x, t).chunk(2)

            def predicted(x0: Tensor) -> Tensor:
                eps = (x - alpha * x0) / sigma
                return target(x0, eps, torch.tensor(alpha).to(x0), torch.tensor(sigma).to(x0), *told)

            reference = predicted(wanted)
            output = torch.lerp(predicted(free), reference, self.scale)
            ratio = per_sample(reference).std(1) / per_sample(output).std(1)
            return to_x0(
                output * beside(torch.lerp(torch.ones_like(ratio), ratio, self.rescale), x), x, alpha, sigma, *told
            )

        return guided

    def mixer(self) -> Mix:
        # Both branches as they are: the mix needs to know what the network predicts.
        return lambda x, level, free, wanted: torch.cat([free, wanted])

    @property
    def _unscaled(self) -> ClassifierFree:
        return ClassifierFree(scale=self.scale, batched=self.batched)

    @property
    def evaluations(self) -> int:
        return self._unscaled.evaluations if self.rescale == 0 else super().evaluations


class Projected(Contrast):
    """Adaptive projected guidance (Sadat et al. 2024, algorithm 1).

    x_0 = D_c + (scale - 1) (d_orthogonal + eta d_parallel), where d = D_c - D_null plus ``momentum`` times the d of the
    walk's evaluation before, shortened to ``norm``, is split along D_c per sample. With eta 1, no momentum and no norm
    it is classifier-free guidance.
    """

    eta: Annotated[float, Field(ge=-10, le=10, description="share of the part along the prediction")] = 0.0
    momentum: Annotated[float, Field(ge=-1, le=1, description="of the difference; negative in the paper")] = 0.0
    norm: Annotated[float, Field(gt=0, le=1e9, description="longest difference; null: any")] | None = None

    def mixer(self) -> Mix:
        before: Tensor | None = None

        def mix(x: Tensor, level: Level, free: Tensor, wanted: Tensor) -> Tensor:
            nonlocal before
            difference = wanted - free
            if before is not None and self.momentum:
                difference = difference.add(before, alpha=self.momentum)
            before = difference
            flat, along = at_length(difference), at_length(wanted)
            if self.norm is not None:
                flat = flat * (self.norm / flat.norm(dim=1, keepdim=True).clamp(min=1e-30)).clamp(max=1)
            along = torch.nn.functional.normalize(along, dim=1)
            parallel = (flat * along).sum(1, keepdim=True) * along
            update = flat + (self.eta - 1) * parallel
            return wanted.add(update.reshape(wanted.shape).to(wanted.dtype), alpha=self.scale - 1)

        return mix


class _Walked(Contrast):
    """A contrast that depends on the walk's times."""

    _grid: Grid | None = PrivateAttr(default=None)

    def over(self, grid: Grid) -> Guidance:
        walked = self.model_copy()
        walked._grid = grid
        return walked

    def walked(self) -> Grid:
        """The walk's grid."""
        if self._grid is None:
            raise OptionError("this guidance depends on the walk's times: call it as guidance.over(grid)(...)")
        return self._grid

    def steps(self) -> Callable[[Level], tuple[Level, Level]]:
        """A level -> (here, there) of the walk's step that an evaluation at it belongs to.

        That is the one that begins nearest, in log-SNR, for methods also look between the levels of their grid, and
        above them. What lies halfway belongs to the step that leads past it.
        """
        pairs = list(self.walked().pairs())
        halfway = [(here.log_snr + there.log_snr) / 2 for here, there in pairs]
        return lambda level: pairs[min(bisect_left(halfway, level.log_snr - 1e-6), len(pairs) - 1)]


class ZeroStar(_Walked):
    """CFG-Zero* (Fan et al. 2025): the unconditional velocity is scaled to fit, and the first steps stand still.

    u = (1 - scale) s u_null + scale u_c with s = <u_c, u_null> / |u_null|^2 per sample, where u is the velocity in flow
    matching's coordinates z = x / (alpha + sigma), u = (z - D) (alpha + sigma) / sigma. In the first ``zero_steps``
    steps of the walk, that is above the level that they end at, u is 0, and the network is not asked.
    """

    zero_steps: Annotated[int, Field(ge=0, le=100_000, description="first steps with no velocity at all")] = 1

    def __call__(self, denoiser: Denoiser, condition: Condition, null: Condition | None) -> Denoise:
        guided = super().__call__(denoiser, condition, null)
        if self.scale == 1 or not self.zero_steps:
            return guided
        self.walked()

        def standing(x: Tensor, t: float) -> Tensor:
            return x / sum(denoiser.schedule.level(t)) if self._stands(t) else guided(x, t)

        return standing

    def _stands(self, t: float) -> bool:
        times = self.walked().times
        return t > times[min(self.zero_steps, len(times) - 1)]

    def evaluations_at(self, level: Level) -> int:
        return 0 if self.scale != 1 and self.zero_steps and self._stands(level.t) else self.evaluations

    def mixer(self) -> Mix:
        def mix(x: Tensor, level: Level, free: Tensor, wanted: Tensor) -> Tensor:
            z = x / (level.alpha + level.sigma)
            towards, away = at_length(z - wanted), at_length(z - free)
            fit = (towards * away).sum(1) / (away * away).sum(1).clamp(min=1e-30)
            return z.lerp(wanted, self.scale).sub_((z - free) * beside((1 - self.scale) * fit, x).to(x.dtype))

        return mix


class PlusPlus(_Walked):
    """CFG++ (Chung et al. 2024): x_0 is guided, and noised again with the unconditional eps.

    x' = alpha' x_0 + sigma' eps_null with x_0 = D_null + scale (D_c - D_null) and scale in [0, 1]. What is returned is
    the x_0 that leads a first-order solver there, (x_0 - r D_null) / (1 - r) with r = (alpha sigma') / (alpha' sigma):
    exact for ddim and euler; with other solvers the same strength of guidance goes into their own step. Those that
    noise x_0 itself anew, as lcm, have no use for it: there take cfg. x_0 is clamped before it is noised, not after,
    for what is returned lies outside the data's range in small steps.
    """

    scale: Annotated[float, Field(ge=0, le=1, description="0 is the free model, 1 the conditional x_0")] = 0.6
    clip: Annotated[float, Field(gt=0, le=1e6, description="clamp the guided x_0; null: leave it")] | None = 1.0

    def __call__(self, denoiser: Denoiser, condition: Condition, null: Condition | None) -> Denoise:
        self.walked()
        return self.mixed(denoiser, condition, self.opposite(condition, null))

    @property
    def evaluations(self) -> int:
        return 2

    @property
    def clips(self) -> bool:
        return True

    def mixer(self) -> Mix:
        steps = self.steps()

        def mix(x: Tensor, level: Level, free: Tensor, wanted: Tensor) -> Tensor:
            here, there = steps(level)
            x0 = torch.lerp(free, wanted, self.scale)
            if self.clip is not None:
                x0 = x0.clamp_(-self.clip, self.clip)
            kept = there.sigma * here.alpha / (there.alpha * here.sigma)
            if kept >= 1:
                return x0  # a step in place, which no x_0 moves
            return x0.mul_(1 / (1 - kept)).add_(free, alpha=-kept / (1 - kept))

        return mix


def _listed(given: Any) -> Any:
    """Labels written as 3 or "3/5", for a comma ends an option."""
    if isinstance(given, str):
        return [int(part) if part.isdecimal() else part for part in given.split("/")]
    return (given,) if isinstance(given, int) and not isinstance(given, bool) else given


class Negative(ClassifierFree):
    """Negative conditions, after the negation of Liu, Li et al. 2022: away from other classes, in place of no class.

    x_0 = N + scale (D_c - N), N the mean of D over the unwanted classes: every one of them costs an evaluation.
    """

    labels: Annotated[
        Seq[Annotated[int, Field(ge=0, le=1_000_000)]],
        BeforeValidator(_listed),
        Field(min_length=1, description="class numbers to move away from, as 3 or 3/5"),
    ]

    def __call__(self, denoiser: Denoiser, condition: Condition, null: Condition | None) -> Denoise:
        if self.scale == 1:
            return lambda x, t: denoiser(x, t, condition)
        if "class_labels" not in condition:
            raise OptionError("this model has no classes to move away from; leave guidance at 1, or name another")
        # The null class stands behind the others.
        known = classes_of(denoiser) if null is None else int(null["class_labels"].min())
        if known is not None and max(self.labels) >= known:
            raise OptionError(f"label {max(self.labels)} is out of range; this model knows 0 to {known - 1}")
        unwanted = [{key: torch.full_like(values, label) for key, values in condition.items()} for label in self.labels]
        parts, mix = [*unwanted, condition], self.mixer()
        together = {key: torch.cat([part[key] for part in parts]) for key in condition}

        def guided(x: Tensor, t: float) -> Tensor:
            if self.batched:
                *others, wanted = denoiser(torch.cat([x] * len(parts)), t, together).chunk(len(parts))
            else:
                *others, wanted = (denoiser(x, t, part) for part in parts)
            return mix(x, Level(t, *denoiser.schedule.level(t)), torch.stack(others).mean(0), wanted)

        return guided

    @property
    def evaluations(self) -> int:
        return 1 if self.scale == 1 else 1 + len(self.labels)
