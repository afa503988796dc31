"""Adversarial losses and their gradient penalty on logits, as pure functions of them.

Every loss is a pair: ``discriminator(real_logits, fake_logits)`` is minimised over the discriminator D, and
``generator(fake_logits)`` over the generator G. Logits are floating point tensors of any shape, usually (N,), and
every loss is a scalar, the mean over all items. :data:`LOSSES` names the pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["LOSSES", "AdversarialLoss", "hinge", "non_saturating", "r1_penalty"]


@dataclass(frozen=True)
class AdversarialLoss:
    """The two sides of an adversarial loss."""

    #: ``discriminator(real_logits, fake_logits)``: scalar loss of D.
    discriminator: Callable[[Tensor, Tensor], Tensor]
    #: ``generator(fake_logits)``: scalar loss of G.
    generator: Callable[[Tensor], Tensor]


def _non_saturating_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """``-E[log sigmoid(D(x))] - E[log(1 - sigmoid(D(G(z))))]``: -log sigmoid(t) = softplus(-t), never infinite."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def _non_saturating_generator(fake_logits: Tensor) -> Tensor:
    """``-E[log sigmoid(D(G(z)))]``."""
    return F.softplus(-fake_logits).mean()


def _hinge_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """``E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))]``."""
    return F.relu(1.0 - real_logits).mean() + F.relu(1.0 + fake_logits).mean()


def _hinge_generator(fake_logits: Tensor) -> Tensor:
    """``-E[D(G(z))]``."""
    return -fake_logits.mean()


#: The loss of I. Goodfellow et al., "Generative Adversarial Nets", 2014 (arXiv:1406.2661): eq. 1 for D, and for G the
#: form at the end of its section 3, which maximises log D(G(z)) so that gradients do not vanish early on:
#: ``L_D = E[softplus(-D(x))] + E[softplus(D(G(z)))]``, ``L_G = E[softplus(-D(G(z)))]``, with D a logit. This is the
#: binary cross entropy of the DCGAN example script.
non_saturating: Final = AdversarialLoss(_non_saturating_discriminator, _non_saturating_generator)

#: The hinge loss of J. H. Lim, J. C. Ye, "Geometric GAN", 2017 (arXiv:1705.02894), as written in T. Miyato et al.,
#: "Spectral Normalization for Generative Adversarial Networks", 2018 (arXiv:1802.05957), eqs. 16 and 17:
#: ``L_D = E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))]``, ``L_G = -E[D(G(z))]``.
hinge: Final = AdversarialLoss(_hinge_discriminator, _hinge_generator)

#: The losses by name.
LOSSES: Final[dict[str, AdversarialLoss]] = {"non_saturating": non_saturating, "hinge": hinge}


def r1_penalty(real_logits: Tensor, real_images: Tensor) -> Tensor:
    """The R1 gradient penalty, without its weight: ``E[||grad_x D(x)||^2]`` over real images x.

    L. Mescheder, A. Geiger, S. Nowozin, "Which Training Methods for GANs do actually Converge?", ICML 2018
    (arXiv:1801.04406), eq. 9, is gamma / 2 times this value. The square is summed over each image's values and averaged
    over the batch. In a net with batch norm an image's logit depends on the whole batch; the gradient of the sum of all
    logits that is used here then counts these cross terms too.

    Args:
        real_logits: (N,) logits of ``real_images``, with their graph.
        real_images: (N, ...) floating point images; ``requires_grad_()`` must be on before D sees them.

    Returns:
        A scalar that can be differentiated with respect to D's parameters.

    Raises:
        ValueError: If ``real_logits`` cannot be differentiated with respect to ``real_images``.
    """
    advice = "call real_images.requires_grad_() and then compute real_logits from them, with gradients enabled"
    if not real_images.requires_grad or not real_logits.requires_grad:
        raise ValueError(f"the penalty needs the gradient of the logits: {advice}")
    (gradient,) = torch.autograd.grad(real_logits.sum(), real_images, create_graph=True, allow_unused=True)
    if gradient is None:
        raise ValueError(f"real_logits do not depend on these real_images: {advice}")
    return gradient.square().flatten(1).sum(dim=1).mean()
