"""The plain U-Net of the segmentation lineage, and its diffusion form.

Architecture: O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
MICCAI 2015 (arXiv:1505.04597), fig. 1, in the layout of the popular PyTorch re-implementation
``milesial/Pytorch-UNet``, whose state dicts load strictly. That layout differs from the paper: its 3x3 convolutions are
padded (so nothing is cropped), each is followed by batch norm, and the upsampling may be bilinear.

The diffusion form predicts from a noisy image and a noise level, as in J. Ho, A. Jain, P. Abbeel, "Denoising Diffusion
Probabilistic Models", NeurIPS 2020 (arXiv:2006.11239), but with this net in place of the paper's residual one.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.frozen import Frozen, Size

__all__ = ["PlainDiffusionUNet", "PlainDiffusionUNetConfig", "PlainUNet", "PlainUNetConfig", "sinusoidal_embedding"]

#: Four poolings by two: the smallest side that leaves a pixel at the bottom.
_MIN_SIDE = 16

_Channels = Annotated[int, Field(ge=1, le=4096)]
_Base = Annotated[int, Field(ge=1, le=1024)]


class PlainUNetConfig(Frozen):
    """Sizes of a plain U-Net."""

    #: Channels of the input.
    in_channels: _Channels = 3
    #: Channels of the output (classes, in segmentation).
    out_channels: _Channels = 1
    #: Channels of the first level; each of the four below has twice as many (with ``bilinear``, the last does not).
    base: _Base = 64
    #: Upsample bilinearly; else by transposed convolutions, which have parameters.
    bilinear: bool = True
    #: Whether the 3x3 convolutions have a bias. Batch norm follows and subtracts any constant, so they add nothing
    #: that training could use; older weights of the lineage have them, newer ones do not. The transposed and the last
    #: 1x1 convolution always have one.
    bias: bool = True


class PlainDiffusionUNetConfig(Frozen):
    """Sizes of the diffusion form of a plain U-Net."""

    #: Side of the images it is trained on, as information for samplers; the net takes any side from 16 up.
    sample_size: Size | None = None
    #: Channels of the noisy image.
    in_channels: _Channels = 3
    #: Channels of the prediction.
    out_channels: _Channels = 3
    #: As in :class:`PlainUNetConfig`.
    base: _Base = 64
    #: As in :class:`PlainUNetConfig`.
    bilinear: bool = True
    #: As in :class:`PlainUNetConfig`.
    bias: bool = True
    #: Width of the time embedding, and so the number of channels that join the input. Even: half sines, half cosines.
    time_width: Annotated[int, Field(ge=4, le=8192, multiple_of=2)] = 256
    #: Rows of the class embedding, or None for a net without classes.
    num_class_embeds: Size | None = None
    #: Width of the class embedding, before it is brought to ``time_width``.
    class_width: Annotated[int, Field(ge=1, le=8192)] = 512


class _DoubleConv(nn.Module):
    """Twice: 3x3 convolution, batch norm, ReLU. The side stays the same."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool, middle: int | None = None) -> None:
        super().__init__()
        middle = outputs if middle is None else middle
        self.double_conv = nn.Sequential(
            nn.Conv2d(inputs, middle, 3, padding=1, bias=bias),
            nn.BatchNorm2d(middle),
            nn.ReLU(inplace=True),
            nn.Conv2d(middle, outputs, 3, padding=1, bias=bias),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.double_conv(x)
        return y


class _Down(nn.Module):
    """Halve the side (rounding down) by max pooling, then a double convolution."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), _DoubleConv(inputs, outputs, bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.maxpool_conv(x)
        return y


class _Up(nn.Module):
    """Double the side, join the skip connection, then a double convolution on ``inputs`` channels in all."""

    def __init__(self, inputs: int, outputs: int, *, bilinear: bool, bias: bool) -> None:
        super().__init__()
        self.up: nn.Module
        if bilinear:
            # Bilinear upsampling keeps the number of channels, so the convolutions below have to reduce it.
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.conv = _DoubleConv(inputs, outputs, bias=bias, middle=inputs // 2)
        else:
            self.up = nn.ConvTranspose2d(inputs, inputs // 2, 2, stride=2)
            self.conv = _DoubleConv(inputs, outputs, bias=bias)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.up(x)
        # Pooling an odd side drops its last row or column; zeros make up for it here.
        rows, columns = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
        if rows or columns:
            x = F.pad(x, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
        y: Tensor = self.conv(torch.cat([skip, x], dim=1))
        return y


class _OutConv(nn.Module):
    """The last 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y


class _Trunk(nn.Module):
    """The layers that both forms share; a base class rather than a part, to keep the published parameter names."""

    def __init__(self, inputs: int, outputs: int, base: int, *, bilinear: bool, bias: bool) -> None:
        super().__init__()
        # Bilinear upsampling halves no channels, so each level must hand half as many to the next for the sum to fit.
        factor = 2 if bilinear else 1
        self.inc = _DoubleConv(inputs, base, bias=bias)
        self.down1 = _Down(base, 2 * base, bias=bias)
        self.down2 = _Down(2 * base, 4 * base, bias=bias)
        self.down3 = _Down(4 * base, 8 * base, bias=bias)
        self.down4 = _Down(8 * base, 16 * base // factor, bias=bias)
        self.up1 = _Up(16 * base, 8 * base // factor, bilinear=bilinear, bias=bias)
        self.up2 = _Up(8 * base, 4 * base // factor, bilinear=bilinear, bias=bias)
        self.up3 = _Up(4 * base, 2 * base // factor, bilinear=bilinear, bias=bias)
        self.up4 = _Up(2 * base, base, bilinear=bilinear, bias=bias)
        self.outc = _OutConv(base, outputs)

    def _run(self, x: Tensor) -> Tensor:
        x1 = self.inc(x)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        x4 = self.down3(x3)
        x = self.up1(self.down4(x4), x4)
        x = self.up2(x, x3)
        x = self.up3(x, x2)
        x = self.up4(x, x1)
        y: Tensor = self.outc(x)
        return y


def _check_images(x: Tensor, channels: int, name: str) -> None:
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(f"{name} must have shape (N, {channels}, H, W), got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {x.dtype}: scale the images to floats first")
    if min(x.shape[2:]) < _MIN_SIDE:
        raise ValueError(
            f"{name} must be at least {_MIN_SIDE} pixels high and wide, as it is halved four times, got "
            f"{x.shape[2]}x{x.shape[3]}: pad or enlarge it"
        )


class PlainUNet(_Trunk):
    """The plain U-Net: images to one map of logits for each output channel.

    Parameters are named as in ``milesial/Pytorch-UNet``: ``inc.double_conv.{0,1,3,4}``,
    ``down{1..4}.maxpool_conv.1.double_conv``, ``up{1..4}.up`` (transposed convolutions only),
    ``up{1..4}.conv.double_conv``, ``outc.conv``; and they start as there, at PyTorch's default. With 3 channels
    in and 1 out, it has 17,267,393 of them (bilinear) or 31,043,521 (transposed), and without biases of the 3x3
    convolutions 17,262,977 or 31,037,633.
    """

    def __init__(self, config: PlainUNetConfig) -> None:
        super().__init__(
            config.in_channels, config.out_channels, config.base, bilinear=config.bilinear, bias=config.bias
        )
        self.config = config

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits.

        Args:
            x: (N, in_channels, H, W) floating point of any range, H and W at least 16 (they need not be even).

        Returns:
            (N, out_channels, H, W) of the dtype of the weights, unbounded.

        Raises:
            ValueError: If the shape or dtype does not fit.
        """
        _check_images(x, self.config.in_channels, "x")
        return self._run(x)


def sinusoidal_embedding(timesteps: Tensor, width: int) -> Tensor:
    """Embed noise levels as sines and cosines.

    With h = width / 2 and frequencies w_i = 10000^(-i / (h - 1)), i = 0 .. h - 1, the embedding of t is
    [sin(w_0 t), .., sin(w_{h-1} t), cos(w_0 t), .., cos(w_{h-1} t)]: the position code of A. Vaswani et al.,
    "Attention Is All You Need", 2017 (arXiv:1706.03762), section 3.5, in the order and with the spacing of the code
    of Ho et al. 2020, where all sines come first and the last frequency is exactly 1 / 10000.

    Args:
        timesteps: (N,) integers or floating point, which need not be whole; usually in [0, 1000).
        width: Even, at least 4.

    Returns:
        (N, width) float32 in [-1, 1].

    Raises:
        ValueError: If the shape or the width does not fit.
    """
    if timesteps.ndim != 1:
        raise ValueError(f"timesteps must have shape (N,), got {tuple(timesteps.shape)}")
    if width < 4 or width % 2:
        raise ValueError(f"width must be even and at least 4, got {width}")
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / (half - 1)
    # In single precision whatever the net runs in: half precision cannot tell late timesteps apart.
    angles = timesteps.to(torch.float32)[:, None] * torch.exp(-math.log(10000.0) * exponents)[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class PlainDiffusionUNet(_Trunk):
    """The plain U-Net as a denoiser, which is told noise level and class through extra input channels.

    A vector ``c = time_mlp(sin/cos(t)) + class_mlp(class_embedding[y])`` of ``time_width`` numbers is spread over
    height and width and concatenated to the noisy image, so the first convolution has ``in_channels + time_width``
    inputs. Both MLPs are Linear, SiLU, Linear. The class term is missing without ``num_class_embeds``. Conditioning by
    concatenated constant maps is one of the ways that V. Dumoulin et al., "Feature-wise transformations", Distill 2018
    (doi:10.23915/distill.00011) compare; it equals a learned bias of the first convolution (but for the zero
    padding at the border), so all deeper layers get the noise level only by way of that layer.

    Any row of the class embedding may stand for "no class" (by habit the last): the net does not treat it apart, so a
    caller who wants classifier-free guidance (J. Ho, T. Salimans, 2022, arXiv:2207.12598) passes it as the label.

    Batch norm makes a prediction in training mode depend on the other items of the batch and their noise levels;
    sample in evaluation mode.
    """

    def __init__(self, config: PlainDiffusionUNetConfig) -> None:
        super().__init__(
            config.in_channels + config.time_width,
            config.out_channels,
            config.base,
            bilinear=config.bilinear,
            bias=config.bias,
        )
        self.config = config
        width = config.time_width
        self.time_mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.class_embedding: nn.Embedding | None = None
        self.class_mlp: nn.Sequential | None = None
        if config.num_class_embeds is not None:
            self.class_embedding = nn.Embedding(config.num_class_embeds, config.class_width)
            self.class_mlp = nn.Sequential(nn.Linear(config.class_width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        *,
        class_labels: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
    ) -> Tensor:
        """Predict from noisy images (noise, image or velocity: what it was trained for).

        Args:
            sample: (N, in_channels, H, W) floating point of about unit variance, H and W at least 16.
            timestep: A number, or a tensor of shape () or (N,) of integers or floating point, usually in [0, 1000).
            class_labels: (N,) long in [0, num_class_embeds), or None for a net without classes.
            encoder_hidden_states: Always None; it is here because samplers pass it to nets with cross-attention.

        Returns:
            (N, out_channels, H, W) of the dtype of the weights, unbounded.

        Raises:
            ValueError: If a shape or dtype does not fit, if class labels are missing or not wanted, or if
                ``encoder_hidden_states`` is given.
        """
        if encoder_hidden_states is not None:
            raise ValueError(
                "the plain U-Net has no cross-attention, so it cannot use encoder_hidden_states: pass None (and "
                "class_labels for class conditions), or use a U-Net with cross-attention"
            )
        _check_images(sample, self.config.in_channels, "sample")
        batch, _, height, width = sample.shape
        condition = self._condition(batch, timestep, class_labels, sample)
        maps = condition[:, :, None, None].expand(batch, self.config.time_width, height, width)
        return self._run(torch.cat([sample, maps], dim=1))

    def _condition(self, batch: int, timestep: Tensor | float, class_labels: Tensor | None, sample: Tensor) -> Tensor:
        """The (N, time_width) sum of both embeddings, in the dtype and on the device of the sample."""
        times = torch.as_tensor(timestep, device=sample.device)
        if times.shape not in ((), (batch,)):
            raise ValueError(f"timestep must have shape () or ({batch},), got {tuple(times.shape)}")
        code = sinusoidal_embedding(times.expand(batch), self.config.time_width)
        condition: Tensor = self.time_mlp(code.to(sample.dtype))
        if self.class_embedding is None or self.class_mlp is None:
            if class_labels is not None:
                raise ValueError("this net has no classes: pass class_labels=None, or set num_class_embeds")
            return condition.to(sample.dtype)
        last = self.class_embedding.num_embeddings - 1
        if class_labels is None:
            raise ValueError(
                f"this net is class-conditional: pass class_labels, (N,) integers in [0, {last}]; for no class, pass "
                f"the row that was trained as such (by habit the last, {last})"
            )
        if class_labels.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"class_labels must be integers, got {class_labels.dtype}: use class_labels.long()")
        if class_labels.shape != (batch,):
            raise ValueError(f"class_labels must have shape ({batch},), got {tuple(class_labels.shape)}")
        condition = condition + self.class_mlp(self.class_embedding(class_labels))
        return condition.to(sample.dtype)
