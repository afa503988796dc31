"""The generators of two DCGAN codes, both of which are genzoo's own DCGAN under other names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from genzoo.cards import Card
from genzoo.formats import BareFormat, Files, FormatError, bare_checkpoint, card_of
from genzoo.header import Slot
from genzoo.tensors import Tensors

PAPER = "Unsupervised representation learning with deep convolutional GANs, arXiv:1511.06434"

#: Prefixes that training in parallel, and dictionaries of several networks, put before a name; the average goes first.
PREFIXES = ("", "avgG.", "netG.", "state_dict.", "model.", "generator.")


def prefix_of(slots: Mapping[str, Slot], first: str) -> str | None:
    """What stands before the name ``first`` in a file, among the usual prefixes."""
    for prefix in PREFIXES:
        for parallel in ("", "module."):
            if prefix + parallel + first in slots:
                return prefix + parallel
    return None


class Script(BareFormat):
    """``netG`` of the dcgan script of pytorch/examples: one ``main`` sequence; every size follows from two shapes."""

    first, last = "main.0.weight", "main.12.weight"

    def lacks(self, slots: Mapping[str, Slot]) -> str | None:
        prefix = prefix_of(slots, self.first)
        if prefix is None:
            return f"no tensor {self.first}"
        slot, end = slots[prefix + self.first], slots.get(prefix + self.last)
        if end is None or len(slot.shape) != 4 or len(end.shape) != 4 or slot.shape[2:] != (4, 4):
            return f"no generator: {self.first} and {self.last} are not its first and last layers"
        return None

    def read(self, files: Files) -> tuple[Card, Tensors]:
        name = bare_checkpoint(files)
        tensors = files.tensors(name)
        prefix = prefix_of(files.header(name).slots, self.first) or ""
        names = {old: self.rename(old.removeprefix(prefix)) for old in tensors if old.startswith(prefix)}
        shown = tensors.renamed({old: f"network.{new}" for old, new in names.items()})
        latent = int(tensors[prefix + self.first].shape[0])
        width, channels = (int(n) for n in tensors[prefix + self.last].shape[:2])
        size = self.size(names.values())
        card = card_of(
            files,
            "dcgan",
            "A DCGAN",
            shape=(channels, size, size),
            config={"image_size": size, "channels": channels, "latent": latent, "width_g": width},
            paper=PAPER,
        )
        return card, shown

    def rename(self, name: str) -> str:
        """genzoo's name of a tensor."""
        return name

    def size(self, names: Iterable[str]) -> int:
        """The side of an image."""
        return 64


class Zoo(Script):
    """DCGAN of facebookresearch/pytorch_GAN_zoo: the first layer apart, the others by name; 32 or 64 pixels."""

    first, last = "formatLayer.weight", "main.outlayer.weight"

    #: Number of doublings after the first layer -> side of an image.
    SIDES: Mapping[int, int] = {2: 32, 3: 64}

    def rename(self, name: str) -> str:
        # A stage is a convolution, its norm and its activation: three places of the sequence.
        if found := re.fullmatch(r"main\.batchNorm(\d)\.(\w+)", name):
            return f"main.{3 * int(found[1]) + 1}.{found[2]}"
        if found := re.fullmatch(r"main\.convTranspose(\d)\.weight", name):
            return f"main.{3 * int(found[1])}.weight"
        return {"formatLayer.weight": "main.0.weight", "main.outlayer.weight": "main.last.weight"}.get(name, name)

    def read(self, files: Files) -> tuple[Card, Tensors]:
        card, tensors = super().read(files)
        place = 3 * (1 + {side: depth for depth, side in self.SIDES.items()}[card.shape[1]])
        names = {name: name.replace("main.last.", f"main.{place}.") for name in tensors}
        return card, tensors.renamed(names)

    def size(self, names: Iterable[str]) -> int:
        depth = max((int(n.split(".")[1]) // 3 for n in names if re.match(r"main\.\d+\.weight", n)), default=0)
        if depth not in self.SIDES:
            raise FormatError(f"a DCGAN with {depth} doublings is not supported; {sorted(self.SIDES)} are")
        return self.SIDES[depth]
