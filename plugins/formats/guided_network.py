"""The network of OpenAI's guided-diffusion as its tensors show it, and the way to genzoo's U-Net."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from genzoo.formats import FormatError
from genzoo.header import Slot
from genzoo.tensors import Tensors
from genzoo_plugins.formats.pipeline import NETWORK

#: Groups of every norm.
GROUPS = 32

ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb": "class_embedding",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
PARTS = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
    "norm": "group_norm",
    "proj_out": "to_out.0",
    "op": "conv",
    "conv": "conv",
}


@dataclass(frozen=True)
class Plan:
    """What the names and shapes of a checkpoint say of its network.

    Attributes:
        in_channels, out_channels: of the images; twice as many come out with a learned variance.
        time_channels: the width of the embedding of time; the first level may be narrower.
        widths: channels of each level, from the top.
        layers: residual blocks of a level on the way down; the way up has one more.
        attended: whether each level has attention.
        resampled: sizes are changed by residual blocks rather than by single convolutions.
        scale_shift: time scales and shifts the norms, rather than being added.
        classes: rows of the class embedding.
    """

    in_channels: int
    out_channels: int
    time_channels: int
    widths: tuple[int, ...]
    layers: int
    attended: tuple[bool, ...]
    resampled: bool
    scale_shift: bool
    classes: int

    @classmethod
    def of(cls, slots: Mapping[str, Slot], source: str) -> Plan:
        """Raises FormatError for what is no whole network of this architecture."""
        downs, ups = _blocks(slots, "input_blocks"), _blocks(slots, "output_blocks")
        # The last module of a level on the way up doubles the size: it stands behind a block, and a block has no conv.
        by_block = {k for k in range(ups) for j in (1, 2) if f"output_blocks.{k}.{j}.in_layers.0.weight" in slots}
        by_conv = {k for k in range(ups) for j in (1, 2) if f"output_blocks.{k}.{j}.conv.weight" in slots}
        grown = sorted(by_block | by_conv)
        run = grown[0] + 1 if grown else ups
        levels = ups // run if run else 0
        if run < 2 or downs != ups or ups != levels * run or grown != [run * u - 1 for u in range(1, levels)]:
            raise FormatError(
                f"{source}: {downs} input_blocks and {ups} output_blocks with upsampling in {grown}: no U-Net of "
                "guided-diffusion with a learned change of size (conv_resample True) at every level"
            )
        first = [f"input_blocks.{1 + i * run}" for i in range(levels)]
        try:
            return cls(
                in_channels=slots["input_blocks.0.0.weight"].shape[1],
                out_channels=slots["out.2.weight"].shape[0],
                time_channels=slots["time_embed.0.weight"].shape[1],
                widths=tuple(slots[f"{block}.0.in_layers.2.weight"].shape[0] for block in first),
                layers=run - 1,
                attended=tuple(f"{block}.1.qkv.weight" in slots for block in first),
                resampled=bool(by_block),
                scale_shift=slots["middle_block.0.emb_layers.1.weight"].shape[0]
                == 2 * slots["middle_block.0.in_layers.2.weight"].shape[0],
                classes=slots["label_emb.weight"].shape[0] if "label_emb.weight" in slots else 0,
            )
        except (KeyError, IndexError) as error:
            raise FormatError(f"{source}: {error} is missing: no whole network of guided-diffusion") from None

    def modules(self) -> Iterator[tuple[str, str]]:
        """(its name there, its name here) of every block, attention and change of size."""
        run, last = self.layers + 1, len(self.widths) - 1
        for i, attended in enumerate(self.attended):
            for j in range(self.layers):
                yield f"input_blocks.{1 + i * run + j}.0", f"down_blocks.{i}.resnets.{j}"
                if attended:
                    yield f"input_blocks.{1 + i * run + j}.1", f"down_blocks.{i}.attentions.{j}"
            if i < last:
                yield f"input_blocks.{(i + 1) * run}.0", f"down_blocks.{i}.downsamplers.0"
        for place, name in enumerate(("resnets.0", "attentions.0", "resnets.1")):
            yield f"middle_block.{place}", f"mid_block.{name}"
        for i, attended in enumerate(reversed(self.attended)):
            for j in range(run):
                yield f"output_blocks.{i * run + j}.0", f"up_blocks.{i}.resnets.{j}"
                if attended:
                    yield f"output_blocks.{i * run + j}.1", f"up_blocks.{i}.attentions.{j}"
            if i < last:
                yield f"output_blocks.{(i + 1) * run - 1}.{1 + attended}", f"up_blocks.{i}.upsamplers.0"


@dataclass(frozen=True)
class Heads:
    """How attention is divided: into heads of one width, or into a number of them; and how q, k and v lie.

    Attributes:
        width: of a head; None where ``count`` says.
        count: of heads, in attention of any width.
        grouped: each head's q, k and v stand together, rather than all heads' q, all k, all v.
    """

    width: int | None
    count: int | None
    grouped: bool

    def split(self, fused: Tensor) -> tuple[Tensor, ...]:
        """(3 C, ...) -> q, k and v, each (C, ...) with its heads one after the other."""
        if not self.grouped:
            return fused.chunk(3)
        channels = fused.shape[0] // 3
        heads = self.count or channels // (self.width or channels)
        if not heads or fused.shape[0] % (3 * heads):
            raise FormatError(f"attention of {channels} channels is not divisible by its heads; mend num_heads")
        parts = fused.view(heads, 3, channels // heads, *fused.shape[1:]).unbind(1)
        return tuple(part.flatten(0, 1) for part in parts)


def _blocks(slots: Mapping[str, Slot], part: str) -> int:
    """How many numbered blocks a part has."""
    return 1 + max((int(found[1]) for name in slots if (found := re.match(rf"{part}\.(\d+)\.", name))), default=-1)


def network_config(plan: Plan, heads: Heads, side: int) -> dict[str, Any]:
    """The settings of genzoo's U-Net."""
    resnet = {True: "Resnet{}sampleBlock2D", False: "{}Block2D"}[plan.resampled]
    network: dict[str, Any] = {
        "kind": "unet",
        "sample_size": side,
        "in_channels": plan.in_channels,
        "out_channels": plan.out_channels,
        "block_out_channels": list(plan.widths),
        "layers_per_block": plan.layers,
        "down_block_types": [("AttnDownBlock2D" if on else resnet.format("Down")) for on in plan.attended],
        "up_block_types": [("AttnUpBlock2D" if on else resnet.format("Up")) for on in reversed(plan.attended)],
        "downsample_type": "resnet" if plan.resampled else "conv",
        "upsample_type": "resnet" if plan.resampled else "conv",
        "resnet_time_scale_shift": "scale_shift" if plan.scale_shift else "default",
        "norm_num_groups": GROUPS,
        "attn_norm_num_groups": GROUPS,
        "attention_head_dim": heads.width,
        "num_class_embeds": plan.classes or None,
    }
    if heads.count is not None:
        network |= {"kind": "guided-unet", "attention_heads": heads.count}
    if plan.time_channels != plan.widths[0]:
        network |= {"kind": "guided-unet", "time_channels": plan.time_channels}
        network["time_embedding_dim"] = 4 * plan.time_channels
    return network


def translated(tensors: Tensors, plan: Plan, heads: Heads, source: str) -> Tensors:
    """Under genzoo's names, with q, k and v apart, and attention's convolutions of one pixel as matrices."""
    modules = dict(plan.modules())
    names: dict[str, str] = {}
    fused: dict[str, str] = {}
    for name in tensors:
        path, _, kind = name.rpartition(".")
        home = next((home for home in (_head(path, 2), _head(path, 3)) if home in modules), "")
        part = path.removeprefix(f"{home}.")
        if home and part == "qkv":
            fused[name] = f"{modules[home]}.to_{{}}.{kind}"
        elif home and part in PARTS:
            names[name] = f"{NETWORK}{modules[home]}.{PARTS[part]}.{kind}"
        elif path in ENDS:
            names[name] = f"{NETWORK}{ENDS[path]}.{kind}"
        else:
            raise FormatError(f"{source}: tensor {name!r} is no part of a U-Net of guided-diffusion")
    out = tensors.renamed(names)
    for name, tensor in out.items():
        if ".attentions." in name and tensor.ndim == 3 and tensor.shape[-1] == 1:
            out[name] = tensor[..., 0]
    for name, pattern in fused.items():
        whole = tensors[name][..., 0] if name.endswith("weight") else tensors[name]
        for letter, third in zip("qkv", heads.split(whole), strict=True):
            out[NETWORK + pattern.format(letter)] = third
    return out


def _head(path: str, count: int) -> str:
    """The first parts of a dotted name."""
    return ".".join(path.split(".")[:count])
