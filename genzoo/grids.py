"""Grids: how the times of a walk are spread over a schedule. Pure functions, float64; each ends at 0, clean data.

Whole times, as the field counts them: leading, trailing, linspace, quadratic. Times between, where the schedule
interpolates and the network is told a fraction: uniform, the ramps even, karras, exponential (also log-snr), beta and
beta-sigma, and listed times.
Those between can be kept within bounds of sigma / alpha: a cosine schedule, or one rescaled to end in pure noise,
begins far beyond every level at which anything can be told from noise, and a ramp would spend most of its steps there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from genzoo.errors import OptionError
from genzoo.schedule import NoiseSchedule

#: leading: 0, r, 2r ... from the clean end; trailing: from the noisy end; linspace: both ends; quadratic: denser near
#: the data (DDIM, section D.3); uniform: trailing without rounding, with flow matching's shift; even: linspace without
#: rounding; karras: even in (sigma / alpha)^(1 / rho) (Karras et al. 2022, eq. 5); exponential, which is log-snr: even
#: in log(alpha / sigma) (Lu et al. 2022); beta: denser at both ends (Lee et al. 2024); beta-sigma: its numbers spread
#: sigma / alpha in place of time, as diffusers has it.
Spacing = Literal[
    "leading",
    "trailing",
    "linspace",
    "quadratic",
    "uniform",
    "even",
    "karras",
    "exponential",
    "log-snr",
    "beta",
    "beta-sigma",
]

#: Spacings that a ramp can take its first and its last time from.
Ends = Literal["leading", "trailing"]

#: The parameters of the beta grid (Lee et al. 2024, section 4).
BETA = 0.6


def times(
    schedule: NoiseSchedule,
    steps: int,
    spacing: Spacing,
    *,
    offset: int = 0,
    rho: float = 7.0,
    shift: float = 1.0,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    ends: Ends | None = None,
) -> list[float]:
    """The times of a walk of ``steps`` evaluations, which fall strictly to 0; one alone is the noisy end.

    Args:
        schedule: gives length and levels.
        steps: how many evaluations, 1 to the schedule's length.
        spacing: see ``Spacing``.
        offset: added to every leading time, those of ``ends`` too.
        rho: the exponent of karras.
        shift: of uniform: t / T becomes shift t / (T + (shift - 1) t) (Esser et al. 2024, eq. 23).
        sigma_max: the first sigma / alpha of times between, where the schedule begins above it; None for its own. The
            time there takes the place of T.
        sigma_min: the last sigma / alpha of a ramp, where the schedule ends below it; None for its own.
        ends: the ramps lie between the first and the last time of that spacing, as diffusers' "use_karras_sigmas" and
            the like lie within its "timestep_spacing", unless a sigma is given in its place; None for 1 and T.
    """
    if spacing in ("leading", "trailing", "linspace", "quadratic"):
        return spaced_times(steps, schedule.length, spacing, offset)
    check_steps(steps, schedule.length)
    whole = spaced_times(steps, schedule.length, ends, offset) if ends else [float(schedule.length), 1.0, 0.0]
    top = bounded(schedule, sigma_max) if sigma_max is not None else whole[0]
    if spacing == "uniform":
        shares = [1 - i / steps for i in range(steps)]
        # Written so that 1 stays 1, whatever the rounding.
        return [top * u / (u + (1 - u) / shift) for u in shares] + [0.0]
    if steps == 1:
        return [top, 0.0]
    last = bounded(schedule, sigma_min) if sigma_min is not None else whole[-2]
    if not last < top:
        raise OptionError(f"sigma_min={sigma_min} leaves nothing below the first level; give a smaller one")
    shares = [1 - i / (steps - 1) for i in range(steps)]
    if spacing in ("beta", "beta-sigma"):
        shares = beta_quantiles(shares, BETA, BETA)
    if spacing in ("even", "beta"):
        return [last + (top - last) * share for share in shares] + [0.0]
    if spacing == "karras":
        return _ramped(schedule, top, last, shares, lambda s: s ** (1 / rho), lambda r: r**rho)
    if spacing == "beta-sigma":
        return _ramped(schedule, top, last, shares, lambda s: s, lambda s: s)
    return _ramped(schedule, top, last, shares, torch.log, torch.exp)


def bounded(schedule: NoiseSchedule, sigma: float) -> float:
    """The time, from 1 to the schedule's last, whose sigma / alpha is nearest to ``sigma``."""
    return max(float(schedule.times_of_log_snr(torch.tensor([-math.log(sigma)], dtype=torch.float64))), 1.0)


def check_steps(steps: int, length: int) -> None:
    """Raise OptionError unless the schedule has that many steps."""
    if not 1 <= steps <= length:
        raise OptionError(f"steps={steps} is out of range; this model's schedule has {length}: give 1 to {length}")


def spaced_times(steps: int, length: int, spacing: Spacing, offset: int = 0) -> list[float]:
    """``steps`` whole times in [1, length] that fall strictly (fewer where rounding merges some), and 0 at the end.

    Args:
        steps: how many evaluations, 1 to ``length``.
        length: the schedule's length T.
        spacing: leading, trailing, linspace or quadratic; the field's timestep k is time k + 1 here.
        offset: added to every leading time ("steps_offset" in the field's files).
    """
    check_steps(steps, length)
    # Floating-point sums in numpy's order, so that halves round to the timesteps that other libraries walk over.
    if spacing == "leading":
        # One alone is the noisy end: the clean end would read pure noise as an image with hardly any in it.
        timesteps = [length - 1] if steps == 1 else [i * (length // steps) + offset for i in range(steps)]
    elif spacing == "trailing":
        stride = (length - length / steps) - length
        timesteps = [round(length + i * stride) - 1 for i in range(steps)]
    elif spacing == "linspace":
        timesteps = [round(k) for k in _ramp(length - 1, steps)]
    elif spacing == "quadratic":
        timesteps = [int(root**2) for root in _ramp((0.8 * length) ** 0.5, steps)]
    else:
        raise OptionError(f"spacing {spacing!r} has no whole times; give leading, trailing, linspace or quadratic")
    # Rounding can make neighbours meet (quadratic grids with many steps): one evaluation there is enough.
    kept = sorted({min(k, length - 1) for k in timesteps}, reverse=True)
    return [float(k + 1) for k in kept] + [0.0]


def listed_times(listed: Sequence[float], steps: int, length: int) -> list[float]:
    """The given times, from the noisiest down, with 0 at the end (align-your-steps and the like).

    ``steps`` must agree with them: a list that is silently thinned out is no longer the one that was asked for.
    """
    evaluated = [float(t) for t in listed if t != 0]
    if not evaluated or evaluated[0] > length or evaluated[-1] < 0:
        raise OptionError(f"times must lie in (0, {length}], the noisiest first")
    if steps != len(evaluated):
        raise OptionError(f"times lists {len(evaluated)} evaluations; say steps={len(evaluated)}, not {steps}")
    return [*evaluated, 0.0]


def beta_quantiles(shares: Sequence[float], a: float, b: float) -> list[float]:
    """The quantiles of the Beta(a, b) distribution at ``shares`` in [0, 1], by bisection."""
    wanted = torch.tensor(shares, dtype=torch.float64)
    low, high = torch.zeros_like(wanted), torch.ones_like(wanted)
    for _ in range(60):
        middle = (low + high) / 2
        below = beta_distribution(middle, a, b) < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    exact = torch.where(wanted <= 0, 0.0, torch.where(wanted >= 1, 1.0, (low + high) / 2))
    found: list[float] = exact.tolist()
    return found


def beta_distribution(x: Tensor, a: float, b: float) -> Tensor:
    """I_x(a, b), the distribution function of Beta(a, b), float64.

    The series x^a / (a B(a, b)) sum_n (1 - b)_n / n! a / (a + n) x^n converges fast up to a half; beyond it
    I_x(a, b) = 1 - I_(1 - x)(b, a).
    """
    mirrored = x > 0.5
    return torch.where(mirrored, 1 - _beta_series((1 - x).clamp(max=0.5), b, a), _beta_series(x.clamp(max=0.5), a, b))


def _beta_series(x: Tensor, a: float, b: float) -> Tensor:
    inverse = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b))
    term, total = torch.ones_like(x), torch.full_like(x, 1 / a)
    for n in range(1, 60):
        term = term * x * ((n - b) / n)
        total = total + term / (a + n)
    return inverse * x**a * total


def _ramped(
    schedule: NoiseSchedule,
    top: float,
    last: float,
    shares: Sequence[float],
    forth: Callable[[Tensor], Tensor],
    back: Callable[[Tensor], Tensor],
) -> list[float]:
    """Times whose sigma / alpha lie, under ``forth``, at ``shares`` of the way up from ``last`` to ``top``.

    Where the schedule ends in pure noise, sigma / alpha has no end there: the ramp covers the levels below it, and its
    first time moves up to the last level.
    """
    # An alpha that is nothing but rounding is no end either: the ramp would spend most of its steps in pure noise.
    begin = top - 1 if schedule.level(top)[0] < 1e-6 else top
    alphas, sigmas = schedule.levels(torch.tensor([begin, last], dtype=torch.float64))
    high, low = forth(sigmas / alphas)
    ramp = low + (high - low) * torch.tensor(shares, dtype=torch.float64)
    inner: list[float] = schedule.times_of_log_snr(-torch.log(back(ramp))).tolist()
    # The ends are exact, whatever the rounding on the way there and back.
    return [top, *inner[1:-1], last, 0.0]


def _ramp(end: float, steps: int) -> list[float]:
    """``steps`` even numbers from 0 to ``end``; one alone is ``end``, for a walk has to begin in the noise."""
    stride = end / max(steps - 1, 1)
    return [i * stride for i in range(steps - 1)] + [end]
