"""An exact denoiser: data drawn from a Gaussian mixture, whose score is known in closed form.

Every pixel is one independent sample, and its channels are the sample's coordinates. An image of 100 x 100 pixels is
therefore 10,000 samples of a distribution in C dimensions, from a single random stream.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genzoo.denoiser import SPREAD, Denoiser, Prediction, target, variance
from genzoo.schedule import NoiseSchedule, SigmaSchedule


@dataclass(frozen=True)
class Mixture:
    """sum_k weight_k N(mean_k, deviation_k^2 I), float64.

    Attributes:
        weights: (K,), of sum 1.
        means: (K, C).
        deviations: (K,).
    """

    weights: Tensor
    means: Tensor
    deviations: Tensor

    @classmethod
    def of(cls, weights: list[float], means: list[list[float]], deviations: list[float]) -> Mixture:
        return cls(*(torch.tensor(values, dtype=torch.float64) for values in (weights, means, deviations)))

    def component(self, k: int) -> Mixture:
        """The k-th Gaussian alone."""
        return Mixture(torch.ones(1, dtype=torch.float64), self.means[k : k + 1], self.deviations[k : k + 1])

    @property
    def mean(self) -> Tensor:
        """(C,)."""
        return self.weights @ self.means

    @property
    def covariance(self) -> Tensor:
        """(C, C)."""
        spread = self.means - self.mean
        inside = (self.weights * self.deviations**2).sum() * torch.eye(self.means.shape[1], dtype=torch.float64)
        return (self.weights[:, None] * spread).T @ spread + inside

    def clean(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """E[x_0 | x_t = x] for x of shape (N, C, H, W), by Bayes' rule.

        Under component k, x_t ~ N(alpha m_k, v_k I) with v_k = alpha^2 s_k^2 + sigma^2, and the conditional mean of x_0
        is m_k + (alpha s_k^2 / v_k) (x - alpha m_k); the components are weighed by their share in the density at x.
        """
        points = x.double().movedim(1, -1)
        variance = alpha**2 * self.deviations**2 + sigma**2
        # |x - alpha m_k|^2, by a product with the means instead of K differences.
        squares = (points**2).sum(-1, keepdim=True) - 2 * alpha * points @ self.means.T
        squares = squares + alpha**2 * (self.means**2).sum(-1)
        share = torch.softmax(self.weights.log() - 0.5 * (squares / variance + x.shape[1] * variance.log()), -1)
        pull = alpha * self.deviations**2 / variance
        clean = (share @ pull)[..., None] * points + share @ ((1 - alpha * pull)[:, None] * self.means)
        return clean.movedim(-1, 1).to(x)

    def sample(self, count: int, stream: torch.Generator) -> Tensor:
        """(count, C, 1, 1)."""
        which = torch.multinomial(self.weights, count, replacement=True, generator=stream)
        noise = torch.randn(count, self.means.shape[1], generator=stream, dtype=torch.float64)
        return (self.means[which] + self.deviations[which, None] * noise)[:, :, None, None]


class MixtureNetwork(nn.Module):
    """What a perfectly trained network would answer, as the prediction that is asked for.

    ``class_labels`` k stands for the k-th component alone and K, as the null class, for the whole mixture; without
    them the mixture is meant. ``calls`` lists how many rows each evaluation had.
    """

    def __init__(self, mixture: Mixture, schedule: NoiseSchedule, prediction: Prediction) -> None:
        super().__init__()
        self.mixture, self.schedule, self.prediction = mixture, schedule, prediction
        self.calls: list[int] = []

    def forward(self, x: Tensor, timestep: Tensor, class_labels: Tensor | None = None) -> Tensor:
        self.calls.append(len(x))
        # In double precision whatever x is, so that the answer is exact before it is rounded.
        levels = self.schedule.levels(self._time(timestep.double()))
        alpha, sigma = (float(level) for level in levels)
        if self.prediction == "edm":
            x = x * variance(alpha, sigma, SPREAD) ** 0.5
        if class_labels is None:
            x0 = self.mixture.clean(x, alpha, sigma)
        else:
            count = len(self.mixture.weights)
            rows = zip(x, class_labels.tolist(), strict=True)
            parts = [self.mixture if k == count else self.mixture.component(k) for k in range(count + 1)]
            x0 = torch.stack([parts[k].clean(row[None], alpha, sigma)[0] for row, k in rows])
        eps = (x - alpha * x0) / sigma
        return target(x0, eps, *(level.to(x) for level in levels), self.prediction)

    def _time(self, told: Tensor) -> Tensor:
        """The time that a network is told of."""
        if isinstance(self.schedule, SigmaSchedule):
            return self.schedule.times_of_log_snr(-4 * told)
        return told - float(self.schedule.timestep(0.0))


#: Two unequal Gaussians in two dimensions, one narrow and one wide, on no axis.
PAIR = Mixture.of([0.3, 0.7], [[0.9, -0.4], [-0.5, 0.2]], [0.15, 0.4])

#: One Gaussian, whose probability flow is known in closed form.
SINGLE = Mixture.of([1.0], [[0.3, -0.6]], [0.5])


def oracle(mixture: Mixture, schedule: NoiseSchedule, prediction: Prediction = "eps") -> Denoiser:
    """The exact denoiser of a mixture."""
    return Denoiser(MixtureNetwork(mixture, schedule, prediction), schedule, prediction)


def gaussian_flow(gaussian: Mixture, x: Tensor, alpha: float, sigma: float) -> Tensor:
    """Where the probability flow (Song et al. 2021, eq. 13) takes x_t of a single Gaussian at time 0.

    The flow keeps each sample's place in units of the standard deviation: (x_t - alpha m) / sqrt(alpha^2 s^2 + sigma^2)
    is constant along it.
    """
    deviation, mean = float(gaussian.deviations), gaussian.means[0][:, None, None]
    return mean + deviation * (x - alpha * mean) / math.sqrt(alpha**2 * deviation**2 + sigma**2)
