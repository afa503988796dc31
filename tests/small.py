"""A small diffusion model, and a place for its files where nothing of the user's is seen."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import huggingface_hub.utils
import pytest
import torch

from genzoo import digests
from genzoo.cards import Card

#: A U-Net of two levels, in the keys of diffusers.
UNET: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": [8, 16],
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}

#: The same as a config's network.
NETWORK: dict[str, Any] = {"kind": "unet", **UNET}


def small_draft(**changes: Any) -> dict[str, Any]:
    """The card of a model of 8 x 8 pixels with that network, as plain data."""
    return {
        "name": "diffusion.small",
        "summary": "a small one",
        "generator": "diffusion",
        "shape": (3, 8, 8),
        "config": {"network": NETWORK},
        "licence": "MIT",
        "paper": "none",
        **changes,
    }


def small_card(**changes: Any) -> Card:
    """``small_draft`` as a card."""
    return Card.model_validate(small_draft(**changes))


@contextlib.contextmanager
def apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of the user's inside the block: no caches, no token, no progress bars; its own working folder."""
    monkeypatch.setenv("GENZOO_CACHE", str(folder / "genzoo-cache"))
    monkeypatch.setenv("HF_TOKEN_PATH", str(folder / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(folder / "token"))
    monkeypatch.chdir(folder)
    huggingface_hub.utils.disable_progress_bars()
    digests.known_of.cache_clear()
    yield
    huggingface_hub.utils.enable_progress_bars()
    digests.known_of.cache_clear()


def make_network(config: dict[str, Any], seed: int = 0) -> Any:
    """A UNet2DModel of diffusers of that config, random but not blind: fresh ones hardly look at their input."""
    from diffusers import UNet2DModel

    torch.manual_seed(seed)
    network = UNet2DModel(**config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
        # An untrained network amplifies the rounding of every step, by more with each: at full scale float32 alone lies
        # several 1e-4 off float64, in either library, and differs with the number of threads.
        network.conv_out.weight.mul_(0.3)
    return network
