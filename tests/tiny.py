"""Tiny models, data and recipes for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import yaml

from genzoo.data import Images
from genzoo.registry import default_zoo
from genzoo.weights import build, write

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = [f"class {i}" for i in range(10)]


def card(name: str = "tiny.dcgan", **changes: Any) -> dict[str, Any]:
    """A card of a DCGAN with a few thousand parameters, without weights."""
    return {
        "name": name,
        "summary": "A tiny DCGAN with random weights",
        "generator": "dcgan",
        "shape": [1, 28, 28],
        "classes": CLASSES,
        "config": {"image_size": 28, "channels": 1, "latent": 8, "width_g": 4, "width_d": 4, "num_classes": 10},
        "data": "fashion-mnist",
        "licence": "MIT",
        "paper": "https://arxiv.org/abs/1511.06434",
        **changes,
    }


def model_folder(folder: Path, name: str = "tiny.dcgan") -> Path:
    """A folder as training writes it, with random weights."""
    from genzoo.cards import Card

    drawn = torch.random.get_rng_state()
    torch.manual_seed(0)
    model = build(default_zoo(), Card.model_validate({**card(name), "shape": (1, 28, 28)}))
    torch.random.set_rng_state(drawn)
    asset = write(folder / "model.safetensors", model.state_dict())
    (folder / "card.yaml").write_text(yaml.safe_dump({**card(name), "weights": asset.model_dump()}, sort_keys=False))
    return folder


def squares(count: int = 64, size: int = 28) -> Images:
    """Bright squares on the left (class 0) or right (class 1)."""
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    pixels = torch.randint(0, 40, (count, 1, size, size), generator=stream, dtype=torch.uint8)
    for i, label in enumerate(labels.tolist()):
        left = label * size // 2
        pixels[i, :, size // 4 : 3 * size // 4, left : left + size // 2] += 180
    return Images(pixels, labels, ("left", "right"), "squares", "train")


def image_folder(root: Path, count: int = 32, size: int = 8) -> Path:
    """The squares as PNG files, one folder per class."""
    from genzoo.images import save_png

    images = squares(count, size)
    for i, (pixels, label) in enumerate(zip(images.pixels, images.labels.tolist(), strict=True)):
        save_png(root / images.classes[label] / f"{i:03d}.png", pixels)
    return root


def recipe_text(data: Path, steps: int = 12, **changes: Any) -> str:
    """A recipe of a diffusion model of 8x8 pictures that trains in a second."""
    network = {
        "kind": "unet",
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": [8, 16],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 8,
        "num_class_embeds": 3,
    }
    settings = {
        "model": {"network": network, "prediction": "v", "schedule": {"kind": "cosine"}, "num_classes": 2},
        "options": {"steps": 4},
        "rate": {"peak": 0.002, "warmup": 2, "shape": "trapezoid", "decay": 0.5},
    }
    document = {
        "version": 1,
        "name": "tiny.squares",
        "recipe": "diffusion",
        "data": {"name": "image-folder", "settings": {"path": str(data), "size": 8, "channels": 1}},
        "seed": 3,
        "steps": steps,
        "batch": 8,
        "settings": settings,
        "log_every": 2,
        "checkpoint_every": 4,
        "preview_every": 1000,
    }
    return yaml.safe_dump({**document, **changes}, sort_keys=False)
