"""StyleGAN as a generator: truncation, mixing of styles, fixed or fresh noise, and the way from one seed to another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, cast, get_args

import torch
from pydantic import Field
from torch import Tensor

from genzoo.errors import OptionError
from genzoo.frozen import Frozen
from genzoo.generator import Generator, Options, evaluating
from genzoo.interpolation import stops
from genzoo.noise import SEED_LIMIT, Noise
from genzoo.part import batch_size
from genzoo_plugins.stylegan.network import Network, StyleGANConfig

__all__ = ["StyleGAN", "StyleGANOptions"]

LayerNoise = Literal["fresh", "fixed", "none"]
Space = Literal["w", "z"]


class StyleGANOptions(Options):
    """What a StyleGAN can be asked per call."""

    truncation: Annotated[
        float, Field(ge=0, le=2, description="psi: 1 leaves the styles, 0 makes every image its class's mean one")
    ] = 1.0
    mix: Annotated[
        int | None, Field(ge=0, lt=SEED_LIMIT, description="a seed whose styles replace those of mix_layers")
    ] = None
    mix_layers: Annotated[
        str | None,
        Field(pattern=r"^\d{1,2}-\d{1,2}$", description="the layers to mix, as 0-2; the coarser half by default"),
    ] = None
    layer_noise: Annotated[
        LayerNoise, Field(description="noise in the layers: fresh for each seed, fixed for all, or none")
    ] = "fresh"


class StyleGAN(Generator):
    """A style-based GAN (Karras et al. 2019, 2020), class-conditional where its config names classes.

    Attributes:
        mean_latent: (classes, latent), or (1, latent) without classes: the running mean of w, for truncation.
    """

    Config: ClassVar[type[Frozen]] = StyleGANConfig
    Options: ClassVar[type[Options]] = StyleGANOptions
    control: ClassVar[Mapping[str, Sequence[float]]] = {"truncation": (0.4, 0.6, 0.7, 0.8, 0.9, 1.0)}
    config: StyleGANConfig
    mean_latent: Tensor

    def __init__(self, config: StyleGANConfig) -> None:
        super().__init__(config)
        self.network = Network(config)
        self.register_buffer("mean_latent", torch.zeros(max(1, config.num_classes), config.latent))

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.config.channels, self.config.image_size, self.config.image_size

    @property
    def num_classes(self) -> int:
        return self.config.num_classes

    # -- from noise to latents ---------------------------------------------------------------------------------------

    @torch.no_grad()
    def track(self, w: Tensor, labels: Tensor | None, decay: float) -> None:
        """Move the running mean of each class that occurs in a batch of w (N, latent) towards the batch's."""
        mean = self.mean_latent
        rows = torch.zeros(len(w), dtype=torch.long, device=w.device) if labels is None else labels
        count = torch.bincount(rows, minlength=len(mean))[:, None]
        batch = torch.zeros_like(mean).index_add_(0, rows, w.to(mean.dtype)) / count.clamp(min=1)
        mean.lerp_(batch, (1 - decay) * (count > 0).to(mean.dtype))

    def latents(self, z: Tensor, labels: Tensor | None, options: StyleGANOptions) -> Tensor:
        """z (N, latent) -> w (N, layers, latent), truncated and mixed as the options say.

        Truncation draws w towards its class's mean: ``w' = mean + psi (w - mean)`` (arXiv:1812.04948, appendix B).
        """
        w = self._truncated(z, labels, options.truncation)[:, None].repeat(1, self.config.layers, 1)
        mixed = self._mix_layers(options)
        if options.mix is not None:
            other = Noise((options.mix,), device=self.device, dtype=self.dtype).normal(self.config.latent)
            other = self._truncated(other.expand(len(z), -1), labels, options.truncation)
            w[:, mixed] = other[:, None]
        return w

    def _truncated(self, z: Tensor, labels: Tensor | None, psi: float) -> Tensor:
        w = self.network.map(z, labels)
        if psi == 1:
            return w
        mean = self.mean_latent if labels is None else self.mean_latent[labels]
        return mean + psi * (w - mean)

    def _mix_layers(self, options: StyleGANOptions) -> slice:
        layers = self.config.layers
        if options.mix_layers is None:
            return slice(0, layers // 2)
        if options.mix is None:
            raise OptionError(f"mix_layers={options.mix_layers} without a seed to mix with; give mix=SEED as well")
        first, last = map(int, options.mix_layers.split("-"))
        if not first <= last < layers:
            raise OptionError(f"mix_layers={options.mix_layers} is out of range; this model has layers 0-{layers - 1}")
        return slice(first, last + 1)

    # -- from latents to images --------------------------------------------------------------------------------------

    def layer_noise(self, noise: Noise, kind: LayerNoise) -> list[Tensor | None]:
        """Noise for each layer: (N, 1, side, side) of the seeds' streams, the fixed (1, 1, side, side), or None."""
        if kind == "fixed":
            return [*self.network.fixed_noise()]
        if kind == "none":
            return [None] * len(self.config.noise_sides)
        return [noise.normal(1, side, side) for side in self.config.noise_sides]

    def _labels(self, labels: Sequence[int] | None) -> Tensor | None:
        return None if labels is None else torch.tensor(labels, device=self.device)

    def sample(self, noise: Noise, options: Any) -> Iterator[Tensor]:
        z = noise.start(self.config.latent)
        w = self.latents(z, self._labels(options.labels), options)
        yield self.network(w, self.layer_noise(noise, options.layer_noise))

    def interpolate(
        self,
        seeds: Sequence[int],
        frames: int,
        *,
        loop: bool = False,
        space: Space = "w",
        batch: int | None = None,
        exact: bool = False,
        **options: Any,
    ) -> Tensor:
        """The way from seed to seed, as every generator's, but by default through w.

        Args:
            seeds, frames, loop, batch, exact: as for every generator.
            space: "w" goes straight from style to style, and from class to class where ``labels`` has one per seed or
                each seed draws its own; "z" goes through the noise.
            options: as for ``generate``.
        """
        if space not in get_args(Space):
            raise OptionError(f"space={space!r} is unknown; known: {', '.join(get_args(Space))}")
        if space == "z":
            return super().interpolate(seeds, frames, loop=loop, batch=batch, exact=exact, **options)
        wanted = cast(StyleGANOptions, self.options(**options))
        ends = Noise(seeds, device=self.device, dtype=self.dtype)
        places = stops(len(ends), frames, loop)
        labels = self.label_numbers(wanted.labels, ends)
        size = batch_size(batch)
        with evaluating(self), torch.inference_mode():
            styles = self.latents(ends.normal(self.config.latent), self._labels(labels), wanted)
            path = torch.stack([torch.lerp(styles[here], styles[there], part) for here, there, part in places])
            if exact:
                path = torch.cat([path, path[-1:].expand(-len(path) % size, -1, -1)])
            first = Noise(ends.seeds[:1], device=self.device, dtype=self.dtype)
            first.normal(self.config.latent)
            noise = self.layer_noise(first, wanted.layer_noise)
            images = [self.network(w, noise).float().clamp(-1, 1).cpu() for w in torch.split(path, size)]
        return torch.cat(images)[: len(places)].clone()
