"""What a walk over known times can work out before it takes a step: their levels, and what depends on no image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from genzoo.denoiser import Condition
    from genzoo.schedule import NoiseSchedule

#: Rows of a condition, at all times of a walk together, above which foreseeing takes memory and saves nothing.
MOST_ROWS = 2048

#: Conditions of one walk that are remembered: who made a new one at every step would foresee the whole walk each time.
MOST_CONDITIONS = 4


@runtime_checkable
class Foresees(Protocol):
    """A network, a part of which depends on no image: it can be worked out for all times of a walk at once."""

    def foresee(self, timesteps: Tensor, condition: Condition) -> list[dict[str, Any]]:
        """For each of ``timesteps``, (T,), keywords that spare the network that part, beside those of ``condition``.

        The network's output is the same with them and without.
        """


class Foresight:
    """What is known of one walk.

    Args:
        schedule: where its times come from.
        levels: time -> (alpha, sigma), in the order of the walk.
    """

    def __init__(self, schedule: NoiseSchedule, levels: Mapping[float, tuple[float, float]]) -> None:
        self.levels = levels
        self._schedule = schedule
        self._timesteps: dict[float, Tensor] = {}
        # By the tensors of a condition, which are kept so that no others take their places in memory.
        self._known: dict[tuple[tuple[str, int], ...], tuple[list[Tensor], dict[float, dict[str, Any]]]] = {}

    def timestep(self, t: float, device: torch.device) -> Tensor:
        """What a network on ``device`` is told of one of the walk's times, ()."""
        if not self._timesteps:
            self._timesteps = dict(zip(self.levels, self._every(device).unbind(), strict=True))
        return self._timesteps[t]

    def _every(self, device: torch.device) -> Tensor:
        return torch.tensor([self._schedule.timestep(t) for t in self.levels], device=device)

    def keywords(self, network: nn.Module, t: float, condition: Condition, device: torch.device) -> dict[str, Any]:
        """What the network foresees of one time under a condition; nothing, where gradients are wanted."""
        if torch.is_grad_enabled():
            return {}
        key = tuple([(name, id(values)) for name, values in condition.items()])
        known = self._known.get(key)
        if known is None:
            rows = max((len(values) for values in condition.values()), default=1)
            if rows * len(self.levels) > MOST_ROWS or len(self._known) == MOST_CONDITIONS:
                return {}
            each: list[dict[str, Any]] = [{} for _ in self.levels]
            if isinstance(network, Foresees):
                each = network.foresee(self._every(device), condition)
            known = self._known[key] = [*condition.values()], dict(zip(self.levels, each, strict=True))
        return known[1][t]
