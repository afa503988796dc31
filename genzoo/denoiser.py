"""Denoisers: (x_t, t, condition) -> x_0, whatever the network was trained to predict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from genzoo.errors import OptionError
from genzoo.foresight import Foresight
from genzoo.schedule import NoiseSchedule

#: What the network is told beside x_t and t: keyword arguments, each with one row a sample.
Condition = Mapping[str, Tensor]

#: x_t, t -> x_0: a denoiser with its condition and guidance already inside.
Denoise = Callable[[Tensor, float], Tensor]

#: eps: the noise; x0: the data; v = alpha eps - sigma x_0 (Salimans & Ho 2022); flow = eps - x_0, the velocity of flow
#: matching (Lipman et al. 2023); edm: F of EDM's preconditioning (Karras et al. 2022, eq. 7).
Prediction = Literal["eps", "v", "x0", "flow", "edm"]

#: The deviation of the data that EDM's preconditioning takes, sigma_data of its table 1.
SPREAD = 0.5


def to_x0(
    output: Tensor,
    x: Tensor,
    alpha: float | Tensor,
    sigma: float | Tensor,
    prediction: Prediction,
    spread: float = SPREAD,
) -> Tensor:
    """The estimate of x_0 that a network's output stands for.

    eps: (x_t - sigma eps) / alpha; v: (alpha x_t - sigma v) / (alpha^2 + sigma^2); x0: the output itself;
    flow: (x_t - sigma u) / (alpha + sigma); edm: c_skip x_t / alpha + c_out F, which in alpha and sigma is
    (alpha d^2 / p) x_t + (sigma d / sqrt(p)) F, d = ``spread`` and p = alpha^2 d^2 + sigma^2.

    Args:
        output, x: (N, C, H, W), the network's output at x_t and x_t itself.
        alpha, sigma: the level of x_t, numbers or (N, 1, 1, 1).
        prediction: what the output is.
        spread: the data's deviation, for "edm".
    """
    if prediction == "eps":
        return (x - sigma * output) / alpha
    if prediction == "v":
        return (alpha * x - sigma * output) / (alpha * alpha + sigma * sigma)
    if prediction == "flow":
        return (x - sigma * output) / (alpha + sigma)
    if prediction == "edm":
        power = variance(alpha, sigma, spread)
        return x * (alpha * spread**2 / power) + output * (sigma * spread / power**0.5)
    return output


def variance(alpha: float | Tensor, sigma: float | Tensor, spread: float) -> float | Tensor:
    """That of x_t, of data whose deviation is ``spread``."""
    return alpha * alpha * spread**2 + sigma * sigma


def target(
    x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor, prediction: Prediction, spread: float = SPREAD
) -> Tensor:
    """What the network must predict at x_t = alpha x_0 + sigma eps; all of x_0's shape or broadcasting to it."""
    if prediction == "eps":
        return eps
    if prediction == "flow":
        return eps - x0
    if prediction == "edm":
        return (sigma * x0 - alpha * spread**2 * eps) / (spread * variance(alpha, sigma, spread) ** 0.5)
    return alpha * eps - sigma * x0 if prediction == "v" else x0


class Denoiser(nn.Module):
    """A network, its noise schedule and what it predicts: the one place where predictions become x_0.

    Args:
        network: called as ``network(x, timestep, **condition)``; returns x's shape (or more channels, where it also
            learned a variance: the first half is the prediction).
        schedule: the levels of the times.
        prediction: "eps", "v", "x0", "flow" or "edm", whose network is given x_t scaled to deviation 1.
        patch: pixels were folded into channels by this factor (pixel-unshuffle): x is not an image where it is not 1.
        spread: the data's deviation, for "edm".
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: NoiseSchedule,
        prediction: Prediction,
        patch: int = 1,
        spread: float = SPREAD,
    ) -> None:
        super().__init__()
        self.network = network
        self.schedule = schedule
        self.prediction: Prediction = prediction
        self.patch = patch
        self.spread = spread
        # The innermost block last. Threads that share a model may take each other's, which are as true; at the end
        # none is left, so that nobody is told of weights as they were.
        self._walks: list[Foresight] = []

    def foreseeing(self, denoise: Denoise, foresight: Foresight) -> Denoise:
        """``denoise``, which asks this denoiser, where it knows the times of a walk: the same results, sooner."""
        walks = self._walks

        def foreseen(x: Tensor, t: float) -> Tensor:
            # Around every call, for walks of one model may take turns.
            walks.append(foresight)
            try:
                return denoise(x, t)
            finally:
                walks.pop()

        return foreseen

    def forward(self, x: Tensor, t: float | Tensor, condition: Condition) -> Tensor:
        """x_0, not clipped. ``x``: (N, C, H, W); ``t``: one time for all, or (N,) float64."""
        if isinstance(t, Tensor):
            levels = self.schedule.levels(t)
            self._check_alpha(float(levels[0].min()))
            alpha, sigma = (level.reshape(-1, 1, 1, 1).to(x) for level in levels)
            return to_x0(self._asked(x, t, condition, None), x, alpha, sigma, self.prediction, self.spread)
        foresight = self._known(t)
        a, s = self.schedule.level(t) if foresight is None else foresight.levels[t]
        self._check_alpha(a)
        return to_x0(self._asked(x, t, condition, foresight), x, a, s, self.prediction, self.spread)

    def _check_alpha(self, alpha: float) -> None:
        if alpha == 0 and self.prediction == "eps":
            raise OptionError(
                "an eps prediction says nothing about x_0 at pure noise, where a zero-terminal-SNR schedule ends; use "
                "a model that predicts v or x0, or a scheduler that starts below it, as ddim:spacing=leading"
            )

    def predict(self, x: Tensor, t: float | Tensor, condition: Condition) -> Tensor:
        """The network's own output at x_t, in x's channels."""
        return self._asked(x, t, condition, self._known(t))

    def _seen(self, x: Tensor, t: float | Tensor) -> Tensor:
        """x_t as the network is given it: c_in of EDM."""
        if self.prediction != "edm":
            return x
        if isinstance(t, Tensor):
            alpha, sigma = (level.reshape(-1, 1, 1, 1).to(x) for level in self.schedule.levels(t))
            return x / variance(alpha, sigma, self.spread) ** 0.5
        return x / variance(*self.schedule.level(t), self.spread) ** 0.5

    def _known(self, t: float | Tensor) -> Foresight | None:
        """The foresight that knows t; none where this is compiled, whose constants the walk's numbers would become."""
        if torch.compiler.is_compiling() or isinstance(t, Tensor):
            return None
        foresight = (None, *self._walks)[-1]  # in one go: another thread may take the last one out
        return foresight if foresight is not None and t in foresight.levels else None

    def _asked(self, x: Tensor, t: float | Tensor, condition: Condition, foresight: Foresight | None) -> Tensor:
        """The network's own output, in x's channels; ``foresight`` knows t."""
        x = self._seen(x, t)
        output: Tensor
        if foresight is None or isinstance(t, Tensor):
            step = self.schedule.timestep(t)
            timestep = (
                step.to(x.device, torch.float32) if isinstance(step, Tensor) else torch.tensor(step, device=x.device)
            )
            output = self.network(x, timestep, **condition)
        else:
            timestep = foresight.timestep(t, x.device)
            output = self.network(x, timestep, **condition, **foresight.keywords(self.network, t, condition, x.device))
        channels = x.shape[1]
        return output if output.shape[1] == channels else output[:, :channels]
