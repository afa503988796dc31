"""A folder of pictures, one folder per class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import torch
from PIL import Image, UnidentifiedImageError
from pydantic import Field
from torch import Tensor

from genzoo.data import Dataset, Images, Split
from genzoo.errors import DataError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"}
MAX_PIXELS = 64 << 20
MAX_BYTES = 8 << 30
MODES = {1: "L", 3: "RGB"}


class ImageFolder(Dataset):
    """``path/train/CLASS/*.png`` and ``path/test/CLASS/*.png``, or ``path/CLASS/*.png`` for training alone.

    Each picture is scaled so that its shorter side is ``size`` and its centre is cut out; transparency becomes white.
    """

    path: str
    size: Annotated[int, Field(ge=1, le=4096)]
    channels: Literal[1, 3] = 3

    def load(self, split: Split) -> Images:
        root = Path(self.path)
        if (root / "train").is_dir():
            root = root / split
        elif split != "train":
            raise DataError(f"{root}: no test split; put folders named train and test there, with one folder per class")
        if not root.is_dir():
            raise DataError(f"{root}: no such folder; give --data FOLDER with one folder per class")
        classes = sorted(p.name for p in root.iterdir() if p.is_dir())
        found = [(f, i) for i, name in enumerate(classes) for f in sorted((root / name).iterdir())]
        files = [(f, i) for f, i in found if f.suffix.lower() in SUFFIXES]
        if not files:
            raise DataError(f"{root}: no pictures; put one folder per class there, with {', '.join(sorted(SUFFIXES))}")
        need = len(files) * self.channels * self.size**2
        if need > MAX_BYTES:
            raise DataError(
                f"{root}: {len(files)} pictures of {self.size} pixels need {need >> 30} GB; choose a smaller size"
            )
        pixels = torch.stack([self._read(file) for file, _ in files])
        return Images(pixels, torch.tensor([i for _, i in files]), tuple(classes), root.name, split)

    def _read(self, path: Path) -> Tensor:
        try:
            with Image.open(path) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise DataError(f"{path}: {picture.width}x{picture.height} pixels; at most {MAX_PIXELS} are read")
                rgba = picture.convert("RGBA")
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: not a readable picture: {error}") from None
        white = Image.new("RGBA", rgba.size, "white")
        white.alpha_composite(rgba)
        flat = white.convert(MODES[self.channels])
        scale = self.size / min(flat.size)
        width, height = (max(self.size, round(side * scale)) for side in flat.size)
        flat = flat.resize((width, height), Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        flat = flat.crop((left, top, left + self.size, top + self.size))
        data = torch.frombuffer(bytearray(flat.tobytes()), dtype=torch.uint8)
        return data.reshape(self.size, self.size, self.channels).permute(2, 0, 1).contiguous()
