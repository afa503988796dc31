"""What diffusion models of images and of latents share: a denoiser, and the options of a walk from noise to data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, cast

from pydantic import Field
from torch import Tensor

from genzoo.denoiser import Condition, Denoiser
from genzoo.foresight import Foresight
from genzoo.frozen import Real
from genzoo.generator import Generator, Options
from genzoo.guidance import Guidance
from genzoo.noise import Noise
from genzoo.registry import default_zoo
from genzoo.scheduler import Denoise, Grid, Level, Scheduler


class DiffusionOptions(Options, defer_build=False):
    """What a diffusion model can be asked per call."""

    steps: Annotated[int, Field(ge=1, le=100_000, description="steps of the scheduler")] = 50
    scheduler: Annotated[
        str | Scheduler, Field(description="a scheduler's name, with options as ddim:eta=0.5,spacing=trailing")
    ] = "ddim"
    guidance: Annotated[
        Real | str | Guidance, Field(description="the scale of classifier-free guidance, or a guidance's name")
    ] = 1.0


class Walker(Generator):
    """A generator that walks from noise to data by its denoiser.

    Attributes:
        denoiser: (x_t, t, condition) -> x_0.
        clip: x_0 is clamped to [-clip, clip] after guidance; None leaves it.
    """

    Options: ClassVar[type[Options]] = DiffusionOptions
    denoiser: Denoiser
    clip: float | None

    def scheduler(self, options: DiffusionOptions) -> Scheduler:
        """The scheduler that the options name."""
        if isinstance(options.scheduler, Scheduler):
            return options.scheduler
        found: Scheduler = (self.zoo or default_zoo()).make("scheduler", options.scheduler)
        return found

    def guidance(self, options: DiffusionOptions) -> Guidance:
        """The guidance that the options name; a number is the scale of classifier-free guidance."""
        chosen, zoo = options.guidance, self.zoo or default_zoo()
        if not isinstance(chosen, Guidance):
            spec = chosen if isinstance(chosen, str) else f"cfg:scale={float(chosen)}"
            chosen = cast(Guidance, zoo.make("guidance", spec))
        return chosen.within(zoo)

    def steered(
        self, options: DiffusionOptions, condition: Condition, null: Condition | None, grid: Grid | None = None
    ) -> Denoise:
        """(x_t, t) -> x_0 with condition, guidance and clipping inside, for a walk over ``grid``."""
        guidance, clip = self.guidance(options), self.clip
        if grid is None:
            denoise = guidance(self.denoiser, condition, null)
        else:
            levels = {level.t: (level.alpha, level.sigma) for level in grid.levels[:-1]}
            foresight = Foresight(self.denoiser.schedule, levels)
            denoise = self.denoiser.foreseeing(guidance.over(grid)(self.denoiser, condition, null), foresight)
        # A scheduler that clips by itself needs x_0 as the network gave it.
        if clip is None or guidance.clips or getattr(self.scheduler(options), "clip", None) is not None:
            return denoise
        # After guidance, which extrapolates: clipping its two branches first would bias what it extrapolates from.
        return lambda x, t: denoise(x, t).clamp(-clip, clip)

    def walk(
        self, start: Tensor, noise: Noise, options: DiffusionOptions, condition: Condition, null: Condition | None
    ) -> Iterator[Tensor]:
        """Yield x after every step from ``start``, which is normal noise; the last is the sample."""
        scheduler = self.scheduler(options)
        options = options.model_copy(update={"scheduler": scheduler})  # so that its name is read once
        grid = scheduler.grid(self.denoiser.schedule, options.steps)
        denoise = self.steered(options, condition, null, grid)
        yield from scheduler.walk(denoise, scheduler.begin(start, grid), grid, noise)

    def nfe(self, options: Any) -> float:
        scheduler = self.scheduler(options)
        schedule = self.denoiser.schedule
        grid = scheduler.grid(schedule, options.steps)
        guidance = self.guidance(options).over(grid)
        return sum(guidance.evaluations_at(Level(t, *schedule.level(t))) for t in scheduler.evaluated(grid))
