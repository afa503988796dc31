"""The same network in diffusers and in genzoo, from one file of weights."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import torch
from torch import Tensor

from genzoo.generator import Generator
from genzoo.registry import default_zoo

#: google/ddpm-cifar10-32's config.json; the network of shared measurements at 6.5 million parameters; and the shipped
#: model's, without its classes, whose pixels are folded into four channels.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "ddpm-cifar10-32": {
        "sample_size": 32, "in_channels": 3, "out_channels": 3, "layers_per_block": 2,
        "block_out_channels": (128, 256, 256, 256), "attention_head_dim": None, "downsample_padding": 0,
        "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6, "norm_num_groups": 32,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    },
    "unet-6m": {
        "sample_size": 32, "in_channels": 3, "out_channels": 3, "layers_per_block": 1,
        "block_out_channels": (64, 128, 192), "norm_num_groups": 32,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    },
    "ddpm.fashion-mnist": {
        "sample_size": 14, "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "block_out_channels": (48, 96),
        "attention_head_dim": 32, "norm_num_groups": 8, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    },
}  # fmt: skip


class Pair:
    """A pipeline of diffusers with random weights, and genzoo's reading of the files that it saves.

    Attributes:
        name: of the architecture.
        theirs, ours: the pipeline and the generator; DDIM, x_0 clipped, in both.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        torch.manual_seed(0)
        network = diffusers.UNet2DModel(**ARCHITECTURES[name]).eval().requires_grad_(False)
        self.theirs = diffusers.DDIMPipeline(network, diffusers.DDIMScheduler())
        self.theirs.set_progress_bar_config(disable=True)
        with TemporaryDirectory() as folder:
            self.theirs.save_pretrained(folder)
            self.ours: Generator = default_zoo().load(folder)
            # Out of the file's map, which ends with the folder.
            for tensor in [*self.ours.parameters(), *self.ours.buffers()]:
                tensor.data = tensor.data.clone(memory_format=torch.preserve_format)

    def make_theirs(self, batch: int, steps: int) -> Tensor:
        """Images in [-1, 1] of the seeds 0 to batch - 1."""
        streams = [torch.Generator().manual_seed(seed) for seed in range(batch)]
        made = self.theirs(batch_size=batch, generator=streams, num_inference_steps=steps, output_type="np").images
        return torch.from_numpy(made).permute(0, 3, 1, 2).mul(2).sub(1)

    def make_ours(self, batch: int, steps: int) -> Tensor:
        """The same by genzoo."""
        return self.ours.generate(range(batch), batch=batch, steps=steps)

    def difference(self, batch: int, steps: int) -> float:
        """The largest difference of a pixel."""
        return float((self.make_theirs(batch, steps) - self.make_ours(batch, steps)).abs().max())

    def save(self, folder: Path) -> None:
        """Write the pipeline, for ``genzoo bench FOLDER diffusers:FOLDER``."""
        self.theirs.save_pretrained(folder)
