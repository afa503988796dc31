"""A chain of guidances."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from genzoo.denoiser import Condition, Denoiser
from genzoo.errors import GenzooError
from genzoo.frozen import Seq
from genzoo.guidance import Guidance
from genzoo.registry import Zoo, default_zoo
from genzoo.scheduler import Denoise, Grid, Level
from genzoo_plugins.guidance.filters import Filter, Interval


def _made(given: Any, info: ValidationInfo) -> Any:
    """Guidances from "apg:scale=3;eta=0.5 + interval:low=0.2;high=5": semicolons stand for commas, which are taken."""
    if not isinstance(given, str):
        return given
    zoo = info.context if isinstance(info.context, Zoo) else default_zoo()
    try:
        return tuple(zoo.make("guidance", part.strip().replace(";", ",")) for part in given.split("+"))
    except GenzooError as error:
        raise ValueError(str(error)) from None


class Chain(Guidance):
    """The parts in order: the first guides the model, each filter after it works on what the parts before it give.

    So ``chain:parts=cfg:scale=3+interval:high=5+threshold`` guides, outside the interval does not, and thresholds both;
    with the last two changed about, only what was guided is thresholded.
    """

    parts: Annotated[Seq[Guidance], BeforeValidator(_made), Field(min_length=1, description="as cfg:scale=3+threshold")]

    @model_validator(mode="after")
    def _followable(self) -> Chain:
        for part in self.parts[1:]:
            if not isinstance(part, Filter):
                raise ValueError(
                    f"{type(part).__name__} can only come first; interval, threshold, autoguidance, classifier follow"
                )
            if isinstance(part, Interval) and part.scale is not None:
                raise ValueError("in a chain the part before interval has the scale; leave interval's out")
        return self

    @property
    def _filters(self) -> list[Filter]:
        return [part for part in self.parts[1:] if isinstance(part, Filter)]

    def __call__(self, denoiser: Denoiser, condition: Condition, null: Condition | None) -> Denoise:
        denoise = self.parts[0](denoiser, condition, null)
        for part in self._filters:
            denoise = part.after(denoise, denoiser, condition, null)
        return denoise

    @property
    def evaluations(self) -> int:
        count = self.parts[0].evaluations
        for part in self._filters:
            # An interval may be left for good, but never costs more than what it limits.
            count = count if isinstance(part, Interval) else count + part.evaluations - 1
        return count

    def evaluations_at(self, level: Level) -> int:
        count = self.parts[0].evaluations_at(level)
        for part in self._filters:
            count = part.evaluations_after(count, level)
        return count

    def within(self, zoo: Zoo) -> Guidance:
        return Chain(parts=tuple(part.within(zoo) for part in self.parts))

    def over(self, grid: Grid) -> Guidance:
        return Chain(parts=tuple(part.over(grid) for part in self.parts))

    @property
    def clips(self) -> bool:
        return any(part.clips for part in self.parts)
