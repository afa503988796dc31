"""Images to files: whole, named by seed, with what made them in their metadata."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from genzoo.errors import GenzooError
from genzoo.files import write_whole


def to_bytes(images: Tensor) -> Tensor:
    """float (N, C, H, W) in [-1, 1] -> uint8, rounded to the nearest of 256 levels."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def to_pil(image: Tensor) -> Image.Image:
    """uint8 (C, H, W) with 1, 3 or 4 channels, or float in [-1, 1], as a picture."""
    pixels = image if image.dtype == torch.uint8 else to_bytes(image[None])[0]
    if pixels.shape[0] not in (1, 3, 4):
        raise GenzooError(f"an image of {pixels.shape[0]} channels cannot be written as PNG; 1, 3 or 4 can")
    data = pixels.permute(1, 2, 0).contiguous().cpu().numpy()
    return Image.fromarray(data[..., 0] if data.shape[2] == 1 else data)


def png_bytes(image: Tensor, metadata: Mapping[str, str] | None = None) -> bytes:
    """A PNG file of one image, with text chunks."""
    info = PngImagePlugin.PngInfo()
    for key, value in (metadata or {}).items():
        info.add_itxt(key, value)
    buffer = io.BytesIO()
    to_pil(image).save(buffer, "PNG", pnginfo=info, optimize=True)
    return buffer.getvalue()


def save_png(path: Path, image: Tensor, metadata: Mapping[str, str] | None = None) -> None:
    """Write one image, whole or not at all."""
    write_whole(path, png_bytes(image, metadata))


def grid(images: Tensor, columns: int, gap: int = 2, fill: float = 1.0) -> Tensor:
    """(N, C, H, W) in [-1, 1] -> (C, H', W'): rows of ``columns`` images with ``gap`` pixels of ``fill`` between."""
    n, c, h, w = images.shape
    columns = max(1, min(columns, n))
    rows = -(-n // columns)
    out = torch.full((c, rows * (h + gap) - gap, columns * (w + gap) - gap), fill)
    for i, image in enumerate(images):
        y, x = divmod(i, columns)
        out[:, y * (h + gap) : y * (h + gap) + h, x * (w + gap) : x * (w + gap) + w] = image
    return out
