"""The generator and the discriminator of DCGAN, as plain modules.

Architecture: A. Radford, L. Metz, S. Chintala, "Unsupervised Representation Learning with Deep Convolutional
Generative Adversarial Networks", ICLR 2016 (arXiv:1511.06434), section 3: no pooling and no hidden fully connected
layer, batch normalisation in both nets except at the generator's output and the discriminator's input, ReLU and a
final tanh in the generator, LeakyReLU of slope 0.2 in the discriminator.

Parameter names and order follow the widely used ``dcgan`` script of ``pytorch/examples``: one ``main`` sequence with
the same indices, so that its 64-pixel, unconditional ``netG`` and ``netD`` state dicts load strictly.

Label conditioning is no part of that paper; see :class:`Network` and :class:`Discriminator` for what is used here.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from genzoo.frozen import Frozen, Size

__all__ = ["DCGANConfig", "Discriminator", "Network"]

#: Side of the smallest feature map, and how many stride-2 stages lead from it to the image, by image size.
_SEED_AND_STAGES = {28: (7, 2), 32: (4, 3), 64: (4, 4)}

_INIT_STD = 0.02
_LEAKY_SLOPE = 0.2


class DCGANConfig(Frozen):
    """Sizes of a DCGAN; both nets are built from the same settings.

    The bounds keep the largest net that a settings file can ask for at some tens of gigabytes.
    """

    #: Side of the square images, in pixels.
    image_size: Literal[28, 32, 64] = 64
    #: Channels of the images (``nc`` of the example script).
    channels: Annotated[int, Field(ge=1, le=256)] = 3
    #: Width of the noise vector (``nz``).
    latent: Annotated[int, Field(ge=1, le=4096)] = 100
    #: Channels of the generator's last hidden stage (``ngf``); each earlier stage has twice as many.
    width_g: Annotated[int, Field(ge=1, le=1024)] = 64
    #: Channels of the discriminator's first stage (``ndf``); each later stage has twice as many.
    width_d: Annotated[int, Field(ge=1, le=1024)] = 64
    #: Number of classes, or None for nets without labels.
    num_classes: Size | None = None
    #: Normalise the discriminator by spectral norm in place of batch norm.
    spectral_norm: bool = False


def _init_layer(layer: nn.Module) -> None:
    """Draw one layer's weights as in section 4 of the paper and in the example script.

    Convolutions are N(0, 0.02) (standard deviation 0.02), batch norm scales N(1, 0.02), all biases 0.
    """
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0.0, _INIT_STD)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.BatchNorm2d):
        layer.reset_running_stats()
        nn.init.normal_(layer.weight, 1.0, _INIT_STD)
        nn.init.zeros_(layer.bias)


def _check_labels(labels: Tensor | None, batch: int, num_classes: int | None) -> None:
    """Refuse labels that do not fit the net; values are only checked by the embedding, to spare a device sync."""
    if num_classes is None:
        if labels is not None:
            raise ValueError("this net has no classes: pass labels=None, or build it with num_classes set")
        return
    if labels is None:
        raise ValueError(f"this net is class-conditional: pass labels, (N,) integers in [0, {num_classes})")
    if labels.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"labels must be integers (torch.long), got {labels.dtype}: use labels.long()")
    if labels.shape != (batch,):
        raise ValueError(f"labels must have shape ({batch},), one for each item, got {tuple(labels.shape)}")


class Network(nn.Module):
    """The generator G of DCGAN.

    With labels, the class enters as ``main([z ; e(y)])``: a learned embedding ``e(y)`` as wide as ``z`` is
    concatenated to it, so ``main.0`` has ``2 * latent`` input channels. This is the conditional generator G(z|y) of
    M. Mirza, S. Osindero, "Conditional Generative Adversarial Nets", 2014 (arXiv:1411.1784), eq. 2, whose one-hot ``y``
    is replaced by an embedding. ``main.0`` sees a single pixel, thus it is a linear map, and the sum
    ``W_z z + W_y e(y)`` gives every class its own learned offset of the seed map. The embedding starts as N(0, 1), the
    scale of ``z``, so both halves weigh the same at the start.

    Parameters: ``main`` (and ``embed`` with labels). Stages by image size, from a seed of the given side: 64 px 4x4
    and four doublings, 32 px 4x4 and three, 28 px 7x7 and two.
    """

    def __init__(self, config: DCGANConfig) -> None:
        super().__init__()
        self.config = config
        seed, stages = _SEED_AND_STAGES[config.image_size]
        if config.num_classes is None:
            self.embed = None
            inputs = config.latent
        else:
            self.embed = nn.Embedding(config.num_classes, config.latent)
            inputs = 2 * config.latent
        width = config.width_g * 2 ** (stages - 1)
        # No convolution has a bias: batch norm would subtract it again, and the last one follows the example script.
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(inputs, width, seed, 1, 0, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
        for _ in range(stages - 1):
            layers += [
                nn.ConvTranspose2d(width, width // 2, 4, 2, 1, bias=False),
                nn.BatchNorm2d(width // 2),
                nn.ReLU(inplace=True),
            ]
            width //= 2
        layers += [nn.ConvTranspose2d(width, config.channels, 4, 2, 1, bias=False), nn.Tanh()]
        self.main = nn.Sequential(*layers)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew (needed after ``to_empty`` of a net that was built on the meta device)."""
        for layer in self.main:
            _init_layer(layer)
        if self.embed is not None:
            self.embed.reset_parameters()

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Turn noise into images.

        Args:
            z: (N, latent) floating point, drawn from N(0, 1) as in the example script (the paper draws from a uniform).
            labels: (N,) long in [0, num_classes), or None for a net without classes.

        Returns:
            (N, channels, image_size, image_size) images in [-1, 1], of the dtype of the weights.

        Raises:
            ValueError: If a shape or dtype does not fit, or if labels are missing or not wanted.
        """
        if z.ndim != 2 or z.shape[1] != self.config.latent:
            raise ValueError(f"z must have shape (N, {self.config.latent}), got {tuple(z.shape)}")
        _check_labels(labels, z.shape[0], self.config.num_classes)
        if self.embed is not None and labels is not None:
            z = torch.cat([z, self.embed(labels).to(z.dtype)], dim=1)
        images: Tensor = self.main(z[:, :, None, None])
        return images


class Discriminator(nn.Module):
    r"""The discriminator D of DCGAN, which gives logits.

    The example script ends in a Sigmoid at ``main.12``. It has no parameters, and it is left out: log-likelihoods are
    computed from logits without overflow or saturation (softplus), and hinge losses are defined on logits only.

    With labels, this is the projection discriminator of T. Miyato, M. Koyama, "cGANs with Projection Discriminator",
    ICLR 2018 (arXiv:1802.05637), section 3:

        logit(x, y) = psi(phi(x)) + <e(y), phi(x)>

    phi is all of ``main`` but its last convolution, and psi is that convolution. The paper sums phi over all positions
    first. Here phi keeps them (it is flattened, channels * seed * seed numbers), as psi does: this last map of a DCGAN
    is only 7x7 or 4x4, and at 28 px its receptive field is 10 px, so a sum over it would leave the class term with
    a bag of strokes. Then ``<w + e(y), phi(x)>`` is simply one last convolution for each class with a shared
    part w. ``embed`` starts as N(0, 0.02), like w.

    ``spectral_norm`` follows T. Miyato et al., "Spectral Normalization for Generative Adversarial Networks", ICLR 2018
    (arXiv:1802.05957), eq. 8: each weight matrix (``embed`` too) is divided by its largest singular value, found by
    power iteration. Batch norm is then dropped, as in that paper's SN-GANs, because it rescales by the standard
    deviation of the batch and so would undo the Lipschitz bound; an Identity takes its place to keep the indices, and
    the convolution before it gets a bias for the shift that batch norm gave. First and last convolution stay as
    they are, without bias. Weights are then named ``main.0.parametrizations.weight.original`` and so on.
    """

    def __init__(self, config: DCGANConfig) -> None:
        super().__init__()
        self.config = config
        seed, stages = _SEED_AND_STAGES[config.image_size]
        width = config.width_d
        layers: list[nn.Module] = [
            nn.Conv2d(config.channels, width, 4, 2, 1, bias=False),
            nn.LeakyReLU(_LEAKY_SLOPE, inplace=True),
        ]
        for _ in range(stages - 1):
            layers += [
                nn.Conv2d(width, 2 * width, 4, 2, 1, bias=config.spectral_norm),
                nn.Identity() if config.spectral_norm else nn.BatchNorm2d(2 * width),
                nn.LeakyReLU(_LEAKY_SLOPE, inplace=True),
            ]
            width *= 2
        layers.append(nn.Conv2d(width, 1, seed, 1, 0, bias=False))
        self.main = nn.Sequential(*layers)
        self.embed = None if config.num_classes is None else nn.Embedding(config.num_classes, width * seed * seed)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew (needed after ``to_empty`` of a net that was built on the meta device)."""
        weighted = [layer for layer in self.main if isinstance(layer, nn.Conv2d)]
        normed: list[nn.Module] = [*weighted] if self.embed is None else [*weighted, self.embed]
        for layer in normed:
            # Spectral norm finds its first singular vectors when it is registered, so it has to come after the draw.
            if parametrize.is_parametrized(layer, "weight"):
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
        for layer in self.main:
            _init_layer(layer)
        if self.embed is not None:
            nn.init.normal_(self.embed.weight, 0.0, _INIT_STD)
        if self.config.spectral_norm:
            for layer in normed:
                spectral_norm(layer)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Judge images.

        Args:
            x: (N, channels, image_size, image_size) floating point images in [-1, 1].
            labels: (N,) long in [0, num_classes), or None for a net without classes.

        Returns:
            (N,) logits: positive for images that are taken for real ones.

        Raises:
            ValueError: If a shape or dtype does not fit, or if labels are missing or not wanted.
        """
        side = self.config.image_size
        if x.ndim != 4 or x.shape[1:] != (self.config.channels, side, side):
            raise ValueError(f"x must have shape (N, {self.config.channels}, {side}, {side}), got {tuple(x.shape)}")
        _check_labels(labels, x.shape[0], self.config.num_classes)
        phi: Tensor = self.main[:-1](x)
        logits: Tensor = self.main[-1](phi).flatten()
        if self.embed is not None and labels is not None:
            logits = logits + (self.embed(labels) * phi.flatten(1)).sum(dim=1)
        return logits
