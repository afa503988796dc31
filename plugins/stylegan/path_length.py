"""Path-length regularisation of a style-based generator."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["PathLength"]


class PathLength(nn.Module):
    """Path-length regularisation: ``E[(||J_w^T y||_2 - a)^2]`` (Karras et al. 2020, arXiv:1912.04958, eq. 4).

    y are images of noise, scaled so that the length does not depend on the resolution; a is the running mean of the
    lengths, kept as a buffer, so that a resumed run goes on with it. With a latent per layer, the square of the length
    is the mean over the layers.

    Args:
        decay: of the running mean.
    """

    mean: Tensor

    def __init__(self, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, images: Tensor, w: Tensor, y: Tensor) -> Tensor:
        """The penalty, and one update of the running mean.

        Args:
            images: (N, C, H, W), with their graph from ``w``.
            w: (N, layers, latent), requiring a gradient.
            y: N(0, 1), like ``images``.
        """
        scale = 1 / math.sqrt(images.shape[2] * images.shape[3])
        (gradient,) = torch.autograd.grad((images * y).sum() * scale, w, create_graph=True)
        lengths = gradient.square().sum(dim=2).mean(dim=1).sqrt()
        with torch.no_grad():
            self.mean.lerp_(lengths.mean(), 1 - self.decay)
        # A copy: the backward pass must not see the next step's update in place.
        return (lengths - self.mean.clone()).square().mean()
