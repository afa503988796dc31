"""Noise schedules: t -> (alpha, sigma) with x_t = alpha(t) x_0 + sigma(t) eps."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from genzoo.errors import OptionError
from genzoo.frozen import Frozen, Seq

#: What is linear between the whole times of a table: the angle phi, sigma / alpha, or its logarithm.
Between = Literal["angle", "ratio", "log-ratio"]

#: What a network is told of a time between: itself, or the nearest whole one.
Told = Literal["exact", "nearest"]


#: How many of their numbers are remembered: walk after walk looks up the same, and tensors of one number are slow.
REMEMBERED = 4096


class NoiseSchedule(ABC):
    """How much of the data and how much noise x_t holds at time t in [0, length].

    Time 0 is clean data (alpha 1, sigma 0), so the last step of a walk needs no special case. All numbers are float64.
    A schedule is hashable and does not change: what was worked out of one is remembered.
    """

    @property
    @abstractmethod
    def length(self) -> int:
        """The largest time; x_length is (nearly) pure noise."""

    @abstractmethod
    def angle(self, t: Tensor) -> Tensor:
        """phi(t) in [0, pi/2], float64, with alpha = cos(phi) and sigma = sin(phi)."""

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) of times ``t`` in [0, length], float64, of t's shape."""
        self._check(t)
        phi = self.angle(t.double())
        # Not cos(phi): the float64 nearest to pi/2 has the cosine 6e-17, and alpha must be able to be 0.
        return torch.sin(math.pi / 2 - phi), torch.sin(phi)

    def _check(self, t: Tensor) -> None:
        if t.numel() and not (float(t.min()) >= 0 and float(t.max()) <= self.length):
            raise OptionError(f"time {t.flatten().tolist()[:4]} lies outside [0, {self.length}]")

    def level(self, t: float) -> tuple[float, float]:
        """(alpha, sigma) of one time as floats."""
        # A compiler does not know what is remembered, and warns of it.
        find = _level.__wrapped__ if torch.compiler.is_compiling() else _level
        return find(self, float(t))

    def time_of_log_snr(self, log_snr: float) -> float:
        """The time whose log(alpha / sigma) is ``log_snr``; see ``times_of_log_snr``."""
        return _time_of_log_snr(self, float(log_snr))

    def times_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """The times whose log(alpha / sigma) is ``log_snr``, float64: the inverse of ``levels``, by bisection.

        Values beyond the schedule's ends give the ends.
        """
        wanted = torch.atan2(torch.ones_like(log_snr, dtype=torch.float64), log_snr.double().exp())
        low, high = torch.zeros_like(wanted), torch.full_like(wanted, float(self.length))
        for _ in range(64):
            middle = (low + high) / 2
            below = self.angle(middle) < wanted
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return high

    def timestep(self, t: float | Tensor) -> float | Tensor:
        """What the network is told of time t: counted from 0 for the first noisy level, as the field's files do."""
        return t - 1

    def counted(self, t: float) -> float:
        """Time t as it is counted in the field: what the network is told, unless that is no count."""
        return float(self.timestep(t))

    def add_noise(self, x0: Tensor, eps: Tensor, t: Tensor | float) -> Tensor:
        """The forward process in one step: x_t = alpha(t) x_0 + sigma(t) eps (DDPM, eq. 4).

        Args:
            x0, eps: (N, ...) of one shape.
            t: a time in [0, length], or (N,) of them.
        """
        times = torch.as_tensor(t, dtype=torch.float64)
        shape = (-1,) + (1,) * (x0.ndim - 1)
        alpha, sigma = (level.reshape(shape).to(x0) for level in self.levels(times.reshape(-1)))
        return alpha * x0 + sigma * eps


@lru_cache(REMEMBERED)
def _level(schedule: NoiseSchedule, t: float) -> tuple[float, float]:
    alpha, sigma = schedule.levels(torch.tensor([t], dtype=torch.float64))
    return float(alpha), float(sigma)


@lru_cache(REMEMBERED)
def _time_of_log_snr(schedule: NoiseSchedule, log_snr: float) -> float:
    return float(schedule.times_of_log_snr(torch.tensor([log_snr], dtype=torch.float64)))


class DiscreteSchedule(NoiseSchedule):
    """A table of cumulative products abar_1 .. abar_T, as DDPM defines them; times between entries are interpolated.

    Args:
        abar: T numbers that fall from nearly 1 to nearly 0 (0 itself is allowed in the last place).
        between: what is linear between two entries. Below the first, where sigma / alpha has no logarithm, "log-ratio"
            takes the ratio itself.
        told: what the network is told of a time between.
    """

    def __init__(self, abar: Sequence[float] | Tensor, between: Between = "angle", told: Told = "exact") -> None:
        table = torch.as_tensor(abar, dtype=torch.float64).cpu()
        full = torch.cat([torch.ones(1, dtype=torch.float64), table.flatten()])
        if table.ndim != 1 or not len(table) or not bool((full[1:] < full[:-1]).all()) or float(table[-1]) < 0:
            raise OptionError("abar must be a list of numbers that falls strictly from below 1 to 0 or above")
        self.abar = table
        self.between: Between = between
        self.told: Told = told
        # atan2 keeps both ends exact: sigma(0) = 0, and alpha(T) = 0 for a zero-terminal-SNR schedule.
        self._angles = torch.atan2((1 - full).sqrt(), full.sqrt())

    @property
    def length(self) -> int:
        return len(self.abar)

    def angle(self, t: Tensor) -> Tensor:
        low = t.floor().clamp(max=self.length - 1).long()
        angles = self._angles.to(t.device)
        place = torch.lerp(self._place(angles[low], low), self._place(angles[low + 1], low), t - low)
        if self.between == "angle":
            return place
        return (place if self.between == "ratio" else torch.where(low > 0, place.exp(), place)).atan()

    def _place(self, angle: Tensor, low: Tensor) -> Tensor:
        """What is linear in t between the entries ``low`` and ``low`` + 1. (In float64 tan(pi / 2) is finite.)"""
        if self.between == "angle":
            return angle
        ratio = angle.tan()
        return ratio if self.between == "ratio" else torch.where(low > 0, ratio.log(), ratio)

    def timestep(self, t: float | Tensor) -> float | Tensor:
        told = super().timestep(t)
        if self.told == "exact":
            return told
        return told.round() if isinstance(told, Tensor) else float(round(told))

    def times_of_log_snr(self, log_snr: Tensor) -> Tensor:
        wanted = torch.atan2(torch.ones_like(log_snr, dtype=torch.float64), log_snr.double().exp())
        angles = self._angles.to(wanted.device)
        low = torch.searchsorted(angles, wanted, right=True).sub(1).clamp(0, self.length - 1)
        begin, end = self._place(angles[low], low), self._place(angles[low + 1], low)
        share = (self._place(wanted, low) - begin) / (end - begin)
        return low + share.clamp(0, 1)


class FlowSchedule(NoiseSchedule):
    """The straight line of flow matching (Lipman et al. 2023; Liu et al. 2023): alpha = 1 - t / T, sigma = t / T.

    Args:
        length: T; networks in the field are told times from 0 to 1000.
    """

    def __init__(self, length: int = 1000) -> None:
        self._length = length

    @property
    def length(self) -> int:
        return self._length

    def angle(self, t: Tensor) -> Tensor:
        """atan2(sigma, alpha). The levels are not its cosine and sine: alpha + sigma = 1 here, and not the squares."""
        share = t.double() / self.length
        return torch.atan2(share, 1 - share)

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        self._check(t)
        share = t.double() / self.length
        return 1 - share, share

    def timestep(self, t: float | Tensor) -> float | Tensor:
        return t


class SigmaSchedule(NoiseSchedule):
    """EDM's, whose time is sigma itself (Karras et al. 2022): x_t / alpha = x_0 + s eps with s = sigma / alpha.

    Here alpha^2 + sigma^2 = 1 as everywhere. s^(1/7) is linear from time 1, ``low``, to time T, ``high``, so that even
    times are their grid (eq. 5); below time 1 s itself is. The network is told c_noise = ln(s) / 4 (table 1).

    Args:
        length: T.
        low, high: sigma_min and sigma_max.
    """

    def __init__(self, length: int = 1000, low: float = 0.002, high: float = 80.0) -> None:
        self._length = length
        self._low, self._high = low ** (1 / 7), high ** (1 / 7)

    @property
    def length(self) -> int:
        return self._length

    def ratio(self, t: Tensor) -> Tensor:
        """s of times in [0, T], float64."""
        t = t.double()
        share = (t - 1).clamp(min=0) / (self.length - 1)
        place: Tensor = self._low + (self._high - self._low) * share
        return t.clamp(max=1) * place**7

    def angle(self, t: Tensor) -> Tensor:
        return self.ratio(t).atan()

    def times_of_log_snr(self, log_snr: Tensor) -> Tensor:
        s = (-log_snr.double()).exp()
        share = (s ** (1 / 7) - self._low) / (self._high - self._low)
        return torch.where(share < 0, s / self._low**7, 1 + (self.length - 1) * share).clamp(0, self.length)

    def timestep(self, t: float | Tensor) -> float | Tensor:
        told = self.ratio(torch.as_tensor(t)).log() / 4
        return told if isinstance(t, Tensor) else float(told)

    def counted(self, t: float) -> float:
        return t - 1


def zero_terminal_snr(abar: Tensor) -> Tensor:
    """Rescaled so that the last level is pure noise and the first stays as it was (Lin et al. 2024, algorithm 1).

    sqrt(abar)' = (sqrt(abar) - sqrt(abar_T)) sqrt(abar_1) / (sqrt(abar_1) - sqrt(abar_T)).
    """
    root = abar.sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


class ScheduleConfig(Frozen):
    """A named schedule, of times 0 to ``steps``.

    linear: beta from beta_start to beta_end (Ho et al. 2020); scaled-linear: the same for sqrt(beta) (Rombach et al.
    2022); cosine: abar(s) = cos^2((s + 0.008) / 1.008 * pi/2), beta at most 0.999 (Nichol & Dhariwal 2021, eq. 17);
    listed: the ``betas`` themselves, ``steps`` of them; flow: the straight line of flow matching; edm: sigma / alpha
    from ``sigma_min`` to ``sigma_max`` (Karras et al. 2022). The last two have no betas.
    ``between`` and ``told`` are DiscreteSchedule's. ``terminal`` is the last abar of a zero-terminal-SNR schedule; some
    schedulers of the field keep it at 2^-24, so that sigma / alpha has an end.
    """

    kind: Literal["linear", "scaled-linear", "cosine", "listed", "flow", "edm"] = "linear"
    steps: Annotated[int, Field(ge=1, le=100_000)] = 1000
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    zero_terminal_snr: bool = False
    terminal: Annotated[float, Field(ge=0, lt=1e-3)] = 0.0
    between: Between = "angle"
    told: Told = "exact"
    betas: Seq[Annotated[float, Field(gt=0, lt=1)]] = ()
    sigma_min: Annotated[float, Field(ge=1e-6, le=1e6)] = 0.002
    sigma_max: Annotated[float, Field(ge=1e-6, le=1e6)] = 80.0

    @model_validator(mode="after")
    def _ordered(self) -> ScheduleConfig:
        if self.beta_start > self.beta_end:
            raise ValueError(f"beta_start {self.beta_start} is above beta_end {self.beta_end}")
        if self.zero_terminal_snr and self.steps < 2:
            raise ValueError("zero_terminal_snr needs at least 2 steps")
        if len(self.betas) != (self.steps if self.kind == "listed" else 0):
            raise ValueError(f"betas has {len(self.betas)} numbers; kind 'listed' needs {self.steps}, any other none")
        if self.kind == "flow" and self.zero_terminal_snr:
            raise ValueError("kind 'flow' ends in pure noise as it is; leave zero_terminal_snr out")
        if self.kind == "edm" and (self.zero_terminal_snr or self.steps < 2 or self.sigma_min >= self.sigma_max):
            raise ValueError("kind 'edm' needs 2 steps, sigma_min below sigma_max, and no zero_terminal_snr")
        return self

    @cached_property
    def table(self) -> Tensor:
        """abar, float64, (steps,). Raises OptionError for kinds that have none."""
        if self.kind == "flow":
            raise OptionError("a flow schedule has no table of abar: alpha + sigma is 1, not alpha^2 + sigma^2")
        if self.kind == "edm":
            raise OptionError("an edm schedule has no table of abar: its times are sigmas")
        if self.kind == "cosine":
            s = torch.arange(self.steps + 1, dtype=torch.float64) / self.steps
            f = torch.cos((s + 0.008) / 1.008 * (math.pi / 2)) ** 2
            betas = (1 - f[1:] / f[:-1]).clamp(max=0.999)
        elif self.kind == "scaled-linear":
            betas = torch.linspace(self.beta_start**0.5, self.beta_end**0.5, self.steps, dtype=torch.float64) ** 2
        elif self.kind == "listed":
            betas = torch.tensor(self.betas, dtype=torch.float64)
        else:
            betas = torch.linspace(self.beta_start, self.beta_end, self.steps, dtype=torch.float64)
        abar = torch.cumprod(1 - betas, 0)
        if self.zero_terminal_snr:
            abar = zero_terminal_snr(abar)
            abar[-1] = self.terminal
        return abar

    def build(self) -> NoiseSchedule:
        """The schedule these settings describe."""
        if self.kind == "flow":
            return FlowSchedule(self.steps)
        if self.kind == "edm":
            return SigmaSchedule(self.steps, self.sigma_min, self.sigma_max)
        return DiscreteSchedule(self.table, self.between, self.told)
