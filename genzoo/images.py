"""Images to files: whole, named by seed, with what made them in their metadata."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from genzoo.errors import GenzooError, printable, shorten
from genzoo.files import open_regular, write_whole


def to_bytes(images: Tensor) -> Tensor:
    """float (N, C, H, W) in [-1, 1] -> uint8, rounded to the nearest of 256 levels."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def to_floats(pixels: Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1]: what ``to_bytes`` rounded."""
    return pixels.float() / 127.5 - 1


def to_pil(image: Tensor) -> Image.Image:
    """uint8 (C, H, W) with 1, 3 or 4 channels, or float in [-1, 1], as a picture."""
    pixels = image if image.dtype == torch.uint8 else to_bytes(image[None])[0]
    if pixels.shape[0] not in (1, 3, 4):
        raise GenzooError(f"an image of {pixels.shape[0]} channels cannot be written as PNG; 1, 3 or 4 can")
    data = pixels.permute(1, 2, 0).contiguous().cpu().numpy()
    return Image.fromarray(data[..., 0] if data.shape[2] == 1 else data)


def png_bytes(image: Tensor, metadata: Mapping[str, str] | None = None) -> bytes:
    """A PNG file of one image, with text chunks."""
    buffer = io.BytesIO()
    to_pil(image).save(buffer, "PNG", pnginfo=_chunks(metadata), optimize=True)
    return buffer.getvalue()


def _chunks(metadata: Mapping[str, str] | None) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for key, value in (metadata or {}).items():
        info.add_itxt(key, value)
    return info


#: Largest PNG file that is read: no picture that a model here could change is larger.
MOST_BYTES = 256 << 20


#: What Pillow raises for a file that is damaged, or made to do harm.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


def read_png(path: Path, shape: tuple[int, int, int]) -> Tensor:
    """A PNG of the given (C, H, W) as uint8: grey is made of colours, and colours of grey, where the channels differ.

    Its size is looked at before a pixel is decoded, so a file that would unfold into gigabytes is refused at once.

    Raises GenzooError for a file that is no PNG, of another size, with transparency, or with 16 bits a channel.
    """
    channels, height, width = shape
    if channels not in (1, 3):
        raise GenzooError(f"a model of {channels} channels takes no pictures; one of 1 or 3 does")
    with open_regular(path) as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise GenzooError(f"{path}: larger than {MOST_BYTES >> 20} MB; give a PNG of {width}x{height} pixels")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=("PNG",)) as picture:
                if picture.size != (width, height):
                    raise GenzooError(
                        f"{path}: {picture.width}x{picture.height} pixels; this model needs {width}x{height}: scale it "
                        "first"
                    )
                return _decoded(picture, channels, path)
    except (*UNREADABLE, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise GenzooError(f"{path}: not a readable PNG: {shorten(printable(str(error)), 200)}") from None


def _decoded(picture: Image.Image, channels: int, path: Path) -> Tensor:
    if picture.mode not in ("1", "L", "P", "RGB", "LA", "RGBA"):
        raise GenzooError(f"{path}: pixels of mode {picture.mode}; save it as grey or RGB with 8 bits a channel")
    picture.load()
    if picture.has_transparency_data and picture.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise GenzooError(f"{path}: it is transparent in places; save it without an alpha channel")
    data = bytearray(picture.convert("RGB" if channels == 3 else "L").tobytes())
    return torch.frombuffer(data, dtype=torch.uint8).reshape(picture.height, picture.width, channels).permute(2, 0, 1)


def save_png(path: Path, image: Tensor, metadata: Mapping[str, str] | None = None) -> None:
    """Write one image, whole or not at all."""
    write_whole(path, png_bytes(image, metadata))


#: Formats that move, by the suffix of a file.
ANIMATED = {".gif": "GIF", ".png": "PNG", ".apng": "PNG"}


def save_animation(
    path: Path, frames: Tensor, metadata: Mapping[str, str] | None = None, milliseconds: int = 80
) -> None:
    """Write frames (T, C, H, W), uint8 or in [-1, 1], as an endless film: whole or not at all.

    An animated PNG is exact; a GIF has 256 colours a frame, which is exact for grey images alone.

    Args:
        path: its suffix says the format: .gif, .png or .apng.
        frames: one picture after the other.
        metadata: text that travels along: in chunks of a PNG, in the comment of a GIF.
        milliseconds: that a frame is shown.

    Raises GenzooError for another suffix.
    """
    if path.suffix.lower() not in ANIMATED:
        raise GenzooError(f"{path}: a film is written as {', '.join(ANIMATED)}; give a file of such a name")
    pictures = [to_pil(frame) for frame in frames]
    form = ANIMATED[path.suffix.lower()]
    about: dict[str, Any]
    if form == "GIF":
        about = {"comment": "\n".join(f"{key}: {value}" for key, value in (metadata or {}).items()).encode()}
    else:
        about = {"pnginfo": _chunks(metadata)}
    buffer = io.BytesIO()
    pictures[0].save(buffer, form, save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0, **about)
    write_whole(path, buffer.getvalue())


def grid(images: Tensor, columns: int, gap: int = 2, fill: float = 1.0) -> Tensor:
    """(N, C, H, W), uint8 or in [-1, 1], -> (C, H', W') alike: rows of ``columns`` images.

    Between them are ``gap`` pixels of ``fill``, which is in [-1, 1] whatever the images are.
    """
    n, c, h, w = images.shape
    columns = max(1, min(columns, n))
    rows = -(-n // columns)
    blank = torch.full((c, rows * (h + gap) - gap, columns * (w + gap) - gap), fill)
    out = to_bytes(blank) if images.dtype == torch.uint8 else blank
    for i, image in enumerate(images):
        y, x = divmod(i, columns)
        out[:, y * (h + gap) : y * (h + gap) + h, x * (w + gap) : x * (w + gap) + w] = image
    return out
