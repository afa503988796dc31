"""``unet/`` of Stable Diffusion 1.x and 2.x: a denoiser of latents that is told a sequence of token embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genzoo.cards import Card
from genzoo.formats import Files, Format, FormatError, card_of
from genzoo.tensors import Tensors
from genzoo_plugins.formats.keys import Keys
from genzoo_plugins.formats.pipeline import IDLE, NETWORK, Layout, lacks, load_tensors
from genzoo_plugins.formats.sampling import Sampling, read_scheduler

PAPER = "High-resolution image synthesis with latent diffusion models, arXiv:2112.10752"


class StableDiffusion(Format):
    """``UNet2DConditionModel`` with its scheduler, in sub-folders or side by side; the other parts are left alone."""

    def detect(self, files: Files) -> str | None:
        return lacks(files, "UNet2DConditionModel")

    def read(self, files: Files) -> tuple[Card, Tensors]:
        layout = Layout.of(files)
        sampling = read_scheduler(files.json(layout.scheduler, infinite=True), f"{files.source}: {layout.scheduler}")
        card = make_card(files, files.json(layout.config), sampling)
        tensors = load_tensors(files, layout.folder)
        return card, tensors.renamed({name: NETWORK + name for name in tensors})


def make_card(files: Files, network: Mapping[str, Any], sampling: Sampling) -> Card:
    """The card of the denoiser; the network's keys are checked by the generator's own config when it is built."""
    source = f"{files.source}: the UNet2DConditionModel's config"
    unet = {key: value for key, value in network.items() if key not in IDLE}
    if unet.get("addition_embed_type") is not None:
        raise FormatError(
            f"{source}: addition_embed_type: {str(unet['addition_embed_type'])[:60]!r}, as Stable Diffusion XL has it, "
            "is not supported; Stable Diffusion 1.x and 2.x are"
        )
    keys = Keys(unet, source)
    channels, outputs = keys.get("in_channels", 4, int), keys.get("out_channels", 4, int)
    side = keys.get("sample_size", None, int)
    if outputs != channels:
        raise FormatError(
            f"{source}: in_channels: {channels}, where out_channels is {outputs}: models that fill in or enlarge a "
            "given image are not supported"
        )
    return card_of(
        files,
        "latent-diffusion",
        "The denoiser of Stable Diffusion, without its text encoder and decoder",
        shape=(channels, side, side),
        config={
            "network": unet,
            "schedule": sampling.schedule,
            "prediction": sampling.prediction,
            "clip": sampling.clip,
        },
        options={"steps": sampling.steps, "scheduler": sampling.scheduler},
        paper=PAPER,
    )
