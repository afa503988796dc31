"""The U-Nets of diffusion models, with the configuration keys and parameter names of diffusers.

``UNet2D`` is the network of Ho et al. 2020 ("Denoising diffusion probabilistic models", appendix B) with the options of
Dhariwal & Nichol 2021: diffusers' ``UNet2DModel``. ``UNet2DCondition``, with cross-attention to a sequence such as a
prompt, is the network of Rombach et al. 2022 (latent diffusion, section 3.3): diffusers' ``UNet2DConditionModel`` as
Stable Diffusion 1.x and 2.x configure it. A state dict of either loads with ``strict=True``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genzoo_plugins.diffusion.attention import MapAttention, MapTransformer
from genzoo_plugins.diffusion.blocks import DownBlock, MakeAttention, MakeResnet, MidBlock, ResnetBlock, UpBlock
from genzoo_plugins.diffusion.convolution import Conv2d
from genzoo_plugins.diffusion.embeddings import Fourier, Learned, Sinusoid, TimestepEmbedding
from genzoo_plugins.diffusion.layers import (
    ACTIVATIONS,
    Activation,
    Downsample,
    GroupNorm,
    Upsample,
    activated,
    downsample,
    upsample,
)
from genzoo_plugins.diffusion.memory import keep_what_is_freed, parts
from genzoo_plugins.diffusion.unet_config import GuidedUNetConfig, TrunkConfig, UNet2DConditionConfig, UNet2DConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from genzoo.denoiser import Condition

__all__ = ["GuidedUNetConfig", "UNet2D", "UNet2DCondition", "UNet2DConditionConfig", "UNet2DConfig"]


@dataclass(frozen=True)
class Level:
    """What distinguishes one level of the U from the others."""

    channels: int
    layers: int
    down_attention: MakeAttention | None
    up_attention: MakeAttention | None
    down_by_resnet: bool = False
    up_by_resnet: bool = False


class Trunk(nn.Module):
    """The U that both networks are: down through the levels, the middle, and up again with skip connections."""

    def __init__(
        self,
        config: TrunkConfig,
        levels: Sequence[Level],
        mid_block: MidBlock | None,
        *,
        time_proj: nn.Module,
        time_channels: int,
        embedding_act: Activation = F.silu,
        context_channels: int | None = None,
    ) -> None:
        super().__init__()
        widths, top, last = [level.channels for level in levels], levels[0].channels, len(levels) - 1
        self.config, self.context_channels = config, context_channels
        self.act, self.out_act = ACTIVATIONS[config.act_fn], embedding_act
        self.conv_in = Conv2d(config.in_channels, top, 3, padding=1)
        self.time_proj = time_proj
        self.time_embedding = TimestepEmbedding(time_channels, config.time_width, embedding_act)
        self.class_embedding: nn.Module | None = None
        if config.class_embed_type == "timestep":
            self.class_embedding = TimestepEmbedding(time_channels, config.time_width, embedding_act)
        elif config.class_embed_type == "identity":
            self.class_embedding = nn.Identity()
        elif config.num_class_embeds is not None:
            self.class_embedding = nn.Embedding(config.num_class_embeds, config.time_width)

        resnet = make_resnet(config)

        def down(i: int) -> nn.Module | None:
            if i == last:
                return None
            if levels[i].down_by_resnet:
                return resnet(in_channels=widths[i], out_channels=widths[i], resample=downsample)
            return Downsample(widths[i], config.downsample_padding)

        def up(i: int) -> nn.Module | None:
            if i == 0:
                return None
            if levels[i].up_by_resnet:
                return resnet(in_channels=widths[i], out_channels=widths[i], resample=upsample)
            return Upsample(widths[i])

        self.down_blocks = nn.ModuleList(
            DownBlock(
                widths[max(i - 1, 0)],
                level.channels,
                level.layers,
                resnet=resnet,
                attention=level.down_attention,
                sampler=down(i),
            )
            for i, level in enumerate(levels)
        )
        self.mid_block = mid_block
        self.up_blocks = nn.ModuleList(
            UpBlock(
                widths[min(i + 1, last)],
                widths[max(i - 1, 0)],
                level.channels,
                level.layers + 1,
                resnet=resnet,
                attention=level.up_attention,
                sampler=up(i),
            )
            for i, level in reversed(list(enumerate(levels)))
        )
        self.conv_norm_out = GroupNorm(config.norm_num_groups, top, eps=config.norm_eps)
        self.conv_out = Conv2d(top, config.out_channels, 3, padding=1)
        #: Numbers that the largest map, one beside a skip, has for each pixel of the sample.
        self.widest: float = max((widths[min(i + 1, last)] + level.channels) / 4**i for i, level in enumerate(levels))
        #: In the order in which they are called.
        self.residual = [module for module in self.modules() if isinstance(module, ResnetBlock)]

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        *,
        class_labels: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        told: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Predict from a noisy image, ``eps_theta(x_t, t)`` of Ho et al. 2020 (equation 11) or what else was trained.

        Args:
            sample: ``(N, in_channels, H, W)`` in the weights' dtype; H and W multiples of 2^(levels - 1).
            timestep: a number or a tensor ``()`` or ``(N,)``, of the range the model was trained on (0 to T - 1;
                above 0 for fourier time).
            class_labels: ``(N,)`` integers for ``num_class_embeds``, ``(N,)`` numbers for class_embed_type
                ``timestep``, ``(N, time width)`` floats for ``identity``; required by models that have either.
            encoder_hidden_states: ``(N, S, cross_attention_dim)``, required by models with cross-attention.
            told: what ``foresee`` made of this timestep and these class_labels, which then need not be looked at again.

        Returns:
            ``(N, out_channels, H, W)`` in the dtype of ``sample``.

        Raises:
            ValueError: when a shape does not fit, or a condition is missing or not wanted.
        """
        self._check(sample, encoder_hidden_states)
        times = self._times(sample, timestep)
        if told is None:
            # A scalar timestep stays one row, which broadcasts: every block then embeds it once, not N times.
            labels = self._class_vector(sample.shape[0], class_labels)
            emb = self._embedded(times)
            told = self._tell(emb if labels is None else emb + labels)
        count = parts(sample, self.widest)
        if count <= 1:
            return self._pass(sample, times, told, encoder_hidden_states)

        def by_part(each: Tensor) -> Sequence[Tensor]:
            """Its rows; what has one for all images goes to each part."""
            return [each] * count if len(each) == 1 else each.tensor_split(count)

        rows = zip(*map(by_part, told), strict=True)
        contexts = [None] * count if encoder_hidden_states is None else by_part(encoder_hidden_states)
        given = zip(sample.tensor_split(count), by_part(times), rows, contexts, strict=True)
        return torch.cat([self._pass(*each) for each in given])

    def _pass(self, sample: Tensor, times: Tensor, told: Sequence[Tensor], context: Tensor | None) -> Tensor:
        rest = iter(told)
        x: Tensor = self.conv_in(2 * sample - 1 if self.config.center_input_sample else sample)
        skips: list[Tensor] = [x]
        for block in self.down_blocks:
            x = block(x, skips, rest, context)
        if self.mid_block is not None:
            x = self.mid_block(x, rest, context)
        for block in self.up_blocks:
            x = block(x, skips, rest, context)
        x = self.conv_out(activated(self.out_act, self.conv_norm_out(x)))
        # A network told the noise level by its logarithm predicts a score, which grows as 1 / level.
        return x / times.to(x.dtype)[:, None, None, None] if isinstance(self.time_proj, Fourier) else x

    def foresee(self, timesteps: Tensor, condition: Condition) -> list[dict[str, Any]]:
        """For each of ``timesteps``, ``(T,)``, the keywords of ``forward`` that take work off it and change no result.

        What depends on the time and the class alone is worked out here, for all times in one product a block; on the
        ``class_labels`` of ``condition``, which go into ``forward`` as well.
        """
        keep_what_is_freed()
        emb = self._embedded(timesteps)
        labels = condition.get("class_labels")
        vector = None if labels is None else self._class_vector(len(labels), labels)
        rows = emb if vector is None else (emb[:, None] + vector).flatten(0, 1)
        each = [block.view(len(timesteps), -1, block.shape[1]).unbind() for block in self._tell(rows)]
        return [{"told": told} for told in zip(*each, strict=True)]

    def _embedded(self, times: Tensor) -> Tensor:
        emb: Tensor = self.time_embedding(self.time_proj(times).to(self.conv_in.weight.dtype))
        return emb

    def _tell(self, emb: Tensor) -> list[Tensor]:
        """What each of the residual blocks is told of the vectors ``emb``, ``(R, time width)``."""
        emb = activated(self.act, emb)
        return [block.tell(emb) for block in self.residual]

    def _check(self, sample: Tensor, context: Tensor | None) -> None:
        if sample.ndim != 4 or sample.shape[1] != self.config.in_channels:
            raise ValueError(
                f"sample must be (N, {self.config.in_channels}, H, W) as in_channels says, got {tuple(sample.shape)}"
            )
        unit = 2 ** (len(self.down_blocks) - 1)
        height, width = sample.shape[-2:]
        if height % unit or width % unit:
            raise ValueError(
                f"sample is {height}x{width}; height and width must be multiples of {unit} (it is halved "
                f"{len(self.down_blocks) - 1} times): pad or crop it, e.g. to {-(-height // unit) * unit}x"
                f"{-(-width // unit) * unit}"
            )
        if self.context_channels is None:
            if context is not None:
                raise ValueError("encoder_hidden_states was given to a model without cross-attention; leave it out")
            return
        wanted = f"encoder_hidden_states of shape ({sample.shape[0]}, S, {self.context_channels})"
        if context is None:
            raise ValueError(f"this model has cross-attention: pass {wanted}, such as the text encoder's output")
        if context.ndim != 3 or context.shape[0] != sample.shape[0] or context.shape[2] != self.context_channels:
            raise ValueError(f"expected {wanted}, got {tuple(context.shape)}")

    def _times(self, sample: Tensor, timestep: Tensor | float) -> Tensor:
        times = torch.as_tensor(timestep, device=sample.device)
        if times.ndim == 0:
            times = times[None]
        if times.ndim != 1 or times.shape[0] not in (1, sample.shape[0]):
            raise ValueError(
                f"timestep must be one number or one per image, () or ({sample.shape[0]},), got {tuple(times.shape)}"
            )
        return times

    def _class_vector(self, images: int, labels: Tensor | None) -> Tensor | None:
        if self.class_embedding is None:
            if labels is not None:
                raise ValueError("class_labels was given to a model without classes; leave it out")
            return None
        kind = self.config.class_embed_type
        if kind == "identity":
            wanted: tuple[int, ...] = (images, self.config.time_width)
        else:
            wanted = (images,)
        if labels is None:
            raise ValueError(f"this model has classes: pass class_labels, a tensor of shape {wanted}")
        if labels.shape != wanted:
            raise ValueError(f"class_labels must have shape {wanted}, got {tuple(labels.shape)}")
        dtype = self.conv_in.weight.dtype
        if kind is None:
            if labels.is_floating_point():
                raise ValueError(
                    f"class_labels must be integers below {self.config.num_class_embeds}, got {labels.dtype}"
                )
            vector: Tensor = self.class_embedding(labels)
        else:
            vector = self.class_embedding((self.time_proj(labels) if kind == "timestep" else labels).to(dtype))
        return vector


def make_resnet(config: TrunkConfig, factor: float = 1.0) -> MakeResnet:
    """What makes the residual blocks of a network; ``factor`` divides their sums."""
    return partial(
        ResnetBlock,
        emb_channels=config.time_width,
        groups=config.norm_num_groups,
        eps=config.norm_eps,
        act=ACTIVATIONS[config.act_fn],
        dropout=config.dropout,
        scale_shift=config.resnet_time_scale_shift == "scale_shift",
        factor=factor,
    )


class UNet2D(Trunk):
    """The U-Net of Ho et al. 2020, unconditional or told a class: diffusers' ``UNet2DModel``."""

    config: UNet2DConfig

    def __init__(self, config: UNet2DConfig) -> None:
        top, deepest = config.sinusoid_width, config.block_out_channels[-1]
        plain = config.resnet_time_scale_shift == "default"

        def attention(channels: int, groups: int | None = config.norm_num_groups, factor: float = 1.0) -> nn.Module:
            return MapAttention(channels, config.heads(channels), groups=groups, eps=config.norm_eps, factor=factor)

        levels = [
            Level(
                channels,
                config.layers_per_block,
                down_attention=attention if down == "AttnDownBlock2D" else None,
                up_attention=attention if up == "AttnUpBlock2D" else None,
                down_by_resnet=down == "ResnetDownsampleBlock2D"
                or (down == "AttnDownBlock2D" and config.downsample_type == "resnet"),
                up_by_resnet=up == "ResnetUpsampleBlock2D"
                or (up == "AttnUpBlock2D" and config.upsample_type == "resnet"),
            )
            for channels, down, up in zip(
                config.block_out_channels, config.down_block_types, reversed(config.up_block_types), strict=True
            )
        ]
        mid_block = None
        if config.mid_block_type is not None:
            factor = config.mid_block_scale_factor
            groups = config.attn_norm_num_groups or (config.norm_num_groups if plain else None)
            mid_block = MidBlock(
                deepest,
                resnet=make_resnet(config, factor),
                attention=partial(attention, groups=groups, factor=factor) if config.add_attention else None,
            )
        time_proj: nn.Module
        if config.time_embedding_type == "fourier":
            time_proj, time_channels = Fourier(top), 2 * top
        elif config.time_embedding_type == "learned":
            time_proj, time_channels = Learned(config.num_train_timesteps or 1, top), top
        else:
            time_proj, time_channels = Sinusoid(top, config.flip_sin_to_cos, config.freq_shift), top
        super().__init__(config, levels, mid_block, time_proj=time_proj, time_channels=time_channels)


class UNet2DCondition(Trunk):
    """The U-Net of Rombach et al. 2022, told a sequence by cross-attention: diffusers' ``UNet2DConditionModel``."""

    config: UNet2DConditionConfig

    def __init__(self, config: UNet2DConditionConfig) -> None:
        top, deepest = config.block_out_channels[0], config.block_out_channels[-1]
        context_channels = config.context_channels

        def attention(i: int, wanted: bool) -> MakeAttention | None:
            if not wanted or context_channels is None:
                return None
            return partial(
                MapTransformer,
                heads=config.heads[i],
                layers=config.depths[i],
                context_channels=context_channels,
                groups=config.norm_num_groups,
                linear=config.use_linear_projection,
            )

        levels = [
            Level(
                channels,
                config.layers[i],
                down_attention=attention(i, config.down_block_types[i] == "CrossAttnDownBlock2D"),
                up_attention=attention(i, config.up_block_types[-1 - i] == "CrossAttnUpBlock2D"),
            )
            for i, channels in enumerate(config.block_out_channels)
        ]
        mid_block = None
        if config.mid_block_type is not None:
            attended = config.mid_block_type == "UNetMidBlock2DCrossAttn"
            mid_block = MidBlock(
                deepest,
                resnet=make_resnet(config, config.mid_block_scale_factor),
                attention=attention(-1, attended),
                layers=1 if attended else 0,
            )
        super().__init__(
            config,
            levels,
            mid_block,
            time_proj=Sinusoid(top, config.flip_sin_to_cos, config.freq_shift),
            time_channels=top,
            embedding_act=ACTIVATIONS[config.act_fn],
            context_channels=context_channels,
        )
