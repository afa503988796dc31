"""Checkpoints of junyanz/pytorch-CycleGAN-and-pix2pix, once converted: sizes follow from names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from genzoo.cards import Card
from genzoo.formats import BareFormat, Files, FormatError, bare_checkpoint, card_of
from genzoo.header import Slot
from genzoo.tensors import Tensors

PAPER = "Unpaired image-to-image translation using cycle-consistent adversarial networks, arXiv:1703.10593"
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Junyanz(BareFormat):
    """``latest_net_G.pth``: a resnet of any number of blocks, or a U-Net of 5 to 10 halvings."""

    def lacks(self, slots: Mapping[str, Slot]) -> str | None:
        slots = _unprefixed(slots)
        first = slots.get("model.1.weight")
        if first is not None and len(first.shape) == 4 and first.shape[2:] == (7, 7):
            return None
        ends = [slots.get(name) for name in ("model.model.0.weight", "model.model.3.weight")]
        if all(end is not None and len(end.shape) == 4 for end in ends):
            return None
        return "no model.1.weight of 7x7 pixels, and no model.model.0.weight and model.model.3.weight of 4 dimensions"

    def read(self, files: Files) -> tuple[Card, Tensors]:
        name = bare_checkpoint(files)
        slots = _unprefixed(files.header(name).slots)
        try:
            config = _resnet(slots) if "model.1.weight" in slots else _unet(slots)
        except (KeyError, IndexError) as error:
            raise FormatError(f"{files.source}: {error} is missing: no whole generator of CycleGAN") from None
        instance = config["norm"] == "instance"
        # Old files carry statistics of instance norms, which never used them.
        kept = [n for n in slots if not (instance and n.endswith(STATISTICS))]
        tensors = files.tensors(name)
        prefix = _prefix(tensors)
        card = card_of(
            files,
            "cyclegan",
            "An image translator",
            shape=(config["out_channels"], config["image_size"], config["image_size"]),
            config=config,
            paper=PAPER,
        )
        return card, tensors.renamed({prefix + n: f"network.{n}" for n in kept})


def _prefix(names: Mapping[str, Any]) -> str:
    return "module." if names and all(name.startswith("module.") for name in names) else ""


def _unprefixed(slots: Mapping[str, Slot]) -> dict[str, Slot]:
    prefix = _prefix(slots)
    return {name.removeprefix(prefix): slot for name, slot in slots.items()}


def _resnet(slots: Mapping[str, Slot]) -> dict[str, Any]:
    blocks = {int(found[1]) for name in slots if (found := re.match(r"model\.(\d+)\.conv_block\.", name))}
    last = max(int(found[1]) for name in slots if (found := re.match(r"model\.(\d+)\.", name)))
    width, channels = slots["model.1.weight"].shape[:2]
    return {
        "network": "resnet",
        "depth": len(blocks),
        "width": width,
        "in_channels": channels,
        "out_channels": slots[f"model.{last}.weight"].shape[0],
        "norm": "batch" if "model.2.weight" in slots else "instance",
        "dropout": any(name.endswith("conv_block.6.weight") and len(s.shape) == 4 for name, s in slots.items()),
        "image_size": 256,
    }


def _unet(slots: Mapping[str, Slot]) -> dict[str, Any]:
    # One "model" more in a name is one level further down.
    depth = max(name.count("model.") for name in slots) - 1
    width, channels = slots["model.model.0.weight"].shape[:2]
    return {
        "network": "unet",
        "depth": depth,
        "width": width,
        "in_channels": channels,
        "out_channels": slots["model.model.3.weight"].shape[1],
        "norm": "batch" if "model.model.1.model.2.weight" in slots else "instance",
        "image_size": 1 << depth,
    }
