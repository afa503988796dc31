"""Checkpoints of rosinality/stylegan2-pytorch, once converted: the average generator ``g_ema`` under its own names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genzoo.cards import Card
from genzoo.formats import BareFormat, Files, FormatError, bare_checkpoint, card_of
from genzoo.header import Slot
from genzoo.tensors import Tensors
from genzoo_plugins.stylegan.network import Network, StyleGANConfig

PAPER = "Analyzing and improving the image quality of StyleGAN, arXiv:1912.04958"

#: What stands before the names: nothing in a state dict by itself; the average goes before the last step's weights.
PREFIXES = ("", "g_ema.", "g.")

FIRST = "style.1.weight"
MEAN = "latent_avg"

#: How many latents a mean is taken of where a checkpoint holds none: as many as its own code draws.
DRAWN = 4096


class Rosinality(BareFormat):
    """``g_ema`` (or ``g``) with ``latent_avg``, where the file holds one; sizes follow from names and shapes."""

    def lacks(self, slots: Mapping[str, Slot]) -> str | None:
        prefix = _prefix(slots)
        if prefix is None or f"{prefix}conv1.conv.modulation.weight" not in slots:
            return f"no tensors {FIRST} and conv1.conv.modulation.weight"
        return None

    def read(self, files: Files) -> tuple[Card, Tensors]:
        name = bare_checkpoint(files)
        slots = files.header(name).slots
        prefix = _prefix(slots) or ""
        own = {n.removeprefix(prefix): slot for n, slot in slots.items() if n.startswith(prefix)}
        try:
            config = _config(own)
        except (KeyError, IndexError) as error:
            raise FormatError(f"{files.source}: {error} is missing: no whole generator of StyleGAN2") from None
        tensors = files.tensors(name)
        # A state dict by itself may stand beside the mean, but no other network does.
        shown = tensors.renamed({prefix + n: f"network.{n}" for n in own if n != MEAN})
        mean = tensors[MEAN] if MEAN in tensors else _mean(StyleGANConfig.model_validate(config), shown)
        shown["mean_latent"] = mean.reshape(1, -1)
        card = card_of(
            files,
            "stylegan",
            "A StyleGAN2",
            shape=(config["channels"], config["image_size"], config["image_size"]),
            config=config,
            paper=PAPER,
        )
        return card, shown


def _prefix(slots: Mapping[str, Slot]) -> str | None:
    return next((prefix for prefix in PREFIXES if prefix + FIRST in slots), None)


def _config(slots: Mapping[str, Slot]) -> dict[str, Any]:
    """The sizes of a generator."""
    doublings = 1 + max((int(found[1]) for n in slots if (found := re.match(r"to_rgbs\.(\d+)\.", n))), default=-1)
    base = slots["input.input"].shape[2]
    last = [f"convs.{2 * i + 1}.conv.weight" for i in range(doublings)]
    return {
        "image_size": base << doublings,
        "base": base,
        "channels": slots["to_rgb1.bias"].shape[1],
        "latent": slots[FIRST].shape[1],
        "mapping_layers": sum(bool(re.fullmatch(r"style\.\d+\.weight", n)) for n in slots),
        "widths": [slots[n].shape[1] for n in ("conv1.conv.weight", *last)],
    }


def _mean(config: StyleGANConfig, tensors: Mapping[str, Tensor]) -> Tensor:
    """The mean w of ``DRAWN`` latents, (latent,): the centre of truncation, as such a code works it out."""
    with torch.device("meta"):
        style = Network(config).style
    part = "network.style."
    own = {n.removeprefix(part): t.float() for n, t in tensors.items() if n.startswith(part)}
    if own.keys() != style.state_dict().keys():
        raise FormatError("its mapping network is not whole: no generator of StyleGAN2")
    style.load_state_dict(own, assign=True)
    z = torch.randn(DRAWN, config.latent, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        mean: Tensor = style(z).mean(0)
    return mean.clone()
