"""Latent diffusion: a denoiser of latents that is told a sequence, such as the embedded tokens of a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor

from genzoo.denoiser import Condition, Denoiser, Prediction
from genzoo.errors import OptionError
from genzoo.frozen import Frozen
from genzoo.generator import DEFAULT_BATCH, evaluating
from genzoo.layout import channels_last
from genzoo.noise import Noise
from genzoo.schedule import ScheduleConfig
from genzoo_plugins.diffusion.unet import UNet2DCondition, UNet2DConditionConfig
from genzoo_plugins.diffusion.walker import DiffusionOptions, Walker


class LatentDiffusionConfig(Frozen):
    """A latent diffusion model's architecture.

    Attributes:
        network: the U-Net with cross-attention.
        schedule: the noise schedule.
        prediction: what the network predicts.
        clip: x_0 is clamped to [-clip, clip]; null, as for most latents, leaves it.
    """

    network: UNet2DConditionConfig
    schedule: ScheduleConfig = ScheduleConfig()
    prediction: Prediction = "eps"
    clip: Annotated[float, Field(gt=0, le=1e6)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> LatentDiffusionConfig:
        net = self.network
        if net.in_channels != net.out_channels:
            raise ValueError(f"network.in_channels={net.in_channels} and out_channels={net.out_channels} must be equal")
        if not isinstance(net.sample_size, int):
            raise ValueError("network.sample_size must be one number: the side of a latent")
        if net.context_channels is None or net.num_class_embeds is not None or net.class_embed_type is not None:
            raise ValueError("network must have cross-attention, and no classes")
        return self


class LatentDiffusion(Walker):
    """The denoiser of a latent diffusion model (Rombach et al. 2022), without its text encoder and its decoder.

    It makes latents from token embeddings, by ``latents``; what makes the embeddings, and images of the latents, are
    networks of their own.
    """

    Config: ClassVar[type[Frozen]] = LatentDiffusionConfig
    usage: ClassVar[str] = (
        "tokens = torch.zeros(1, 77, model.token_width)  # (N, T, D) from the text encoder\n"
        "latents = model.latents(range(8), tokens)  # (8, {shape}), for the decoder"
    )
    config: LatentDiffusionConfig

    def __init__(self, config: LatentDiffusionConfig) -> None:
        super().__init__(config)
        self.clip = config.clip
        self.denoiser = Denoiser(UNet2DCondition(config.network), config.schedule.build(), config.prediction)
        channels_last(self)

    @property
    def shape(self) -> tuple[int, int, int]:
        side = cast(int, self.config.network.sample_size)
        return self.config.network.in_channels, side, side

    @property
    def token_width(self) -> int:
        """D of the token embeddings (N, T, D)."""
        return cast(int, self.config.network.context_channels)

    def sample(self, noise: Noise, options: Any) -> Iterator[Tensor]:
        raise OptionError(
            "this model makes latents, not images: call model.latents(seeds, tokens), with tokens (N, T, "
            f"{self.token_width}) from the text encoder, and give what it returns to the decoder"
        )

    def latents(
        self,
        seeds: Sequence[int],
        tokens: Tensor,
        *,
        null_tokens: Tensor | None = None,
        batch: int = DEFAULT_BATCH,
        **options: Any,
    ) -> Tensor:
        """Latents, float32 (N, C, H, W), one per seed; not clamped, and on the model's device.

        Args:
            seeds: N integers in [0, 2**32).
            tokens: (N, T, D) token embeddings, or (1, T, D) for all.
            null_tokens: (T, D) or (1, T, D), the embedded empty prompt, which guidance needs.
            batch: latents per network call.
            options: ``steps``, ``scheduler``, ``guidance``.

        Raises:
            OptionError: shapes or options that do not fit.
        """
        wanted = cast(DiffusionOptions, self.options(**options))
        if wanted.labels is not None:
            raise OptionError("this model takes no labels: the tokens say what to make; leave labels out")
        everything = Noise(tuple(seeds), device=self.device, dtype=self.dtype)
        told = self._rows(tokens, len(everything), "tokens")
        free = None if null_tokens is None else self._rows(null_tokens, len(everything), "null_tokens")
        if free is not None and free.shape[1] != told.shape[1]:
            raise OptionError(
                f"null_tokens has {free.shape[1]} tokens where tokens has {told.shape[1]}; pad the shorter"
            )
        if not len(everything) or batch < 1:
            raise OptionError(f"{len(everything)} seeds, batch={batch}: give 1 or more")
        out = []
        for start in range(0, len(everything), batch):
            rows = slice(start, start + batch)
            noise = Noise(everything.seeds[rows], device=self.device, dtype=self.dtype)
            null = None if free is None else _context(free[rows])
            with evaluating(self), torch.inference_mode():
                last = first = noise.start(*self.shape).contiguous(memory_format=torch.channels_last)
                for x in self.walk(first, noise, wanted, _context(told[rows]), null):
                    last = x
            out.append(last.float())
        return torch.cat(out).clone()

    def _rows(self, given: Tensor, count: int, name: str) -> Tensor:
        shown = tuple(given.shape)
        given = given[None] if given.ndim == 2 else given
        if given.ndim != 3 or given.shape[0] not in (1, count) or given.shape[2] != self.token_width:
            raise OptionError(
                f"{name} must be ({count}, T, {self.token_width}), one row a seed or one for all, not {shown}"
            )
        return given.to(self.device, self.dtype).expand(count, -1, -1)


def _context(tokens: Tensor) -> Condition:
    return {"encoder_hidden_states": tokens}
