"""Sheets: the pictures that results carry, as PNG in base64."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import torch
from torch import Tensor

from genzoo.images import grid, png_bytes, to_floats
from genzoo.metric import Features
from genzoo.neighbours import nearest
from genzoo.results import Neighbours, Sheet

COLUMNS = 10
ROWS = 4


def encoded(pixels: Tensor, columns: int) -> str:
    """uint8 images (N, C, H, W) in rows of ``columns``, as a PNG in base64."""
    return base64.b64encode(png_bytes(grid(to_floats(pixels), columns=columns, gap=1))).decode()


def sheet_of(pixels: Tensor, classes: Sequence[str], seeds: Sequence[int]) -> Sheet:
    """The first of uint8 images (N, C, H, W) as a sheet; image i is of class i mod K.

    One class a column, in as many columns as hold all classes equally often; more classes than columns go unnamed.
    """
    if len(classes) > COLUMNS:
        classes = ()
    width = COLUMNS - COLUMNS % len(classes) if classes else COLUMNS
    count = min(len(pixels), width * ROWS)
    columns = min(width, count)
    return Sheet(
        png=encoded(pixels[:count], columns),
        columns=columns,
        labels=tuple(classes[i % len(classes)] for i in range(columns)) if classes else (),
        seeds=tuple(seeds[:count]),
    )


def neighbours_of(
    fake: Features, train: Features, pixels: Tensor, train_pixels: Tensor, seeds: Sequence[int]
) -> Neighbours | None:
    """The generated images that lie nearest to a training image, above those training images.

    Args:
        fake, train: features of N generated and M training images.
        pixels, train_pixels: the images themselves, uint8 (N, C, H, W) and (M, C, H, W).
        seeds: of the generated images.

    Returns None where the two are of different shapes, and cannot stand in one picture.
    """
    if pixels.shape[1:] != train_pixels.shape[1:]:
        return None
    distances, rows = nearest(fake.vectors, train.vectors)
    closest = distances.argsort(stable=True)[:COLUMNS]
    return Neighbours(
        png=encoded(torch.cat([pixels[closest], train_pixels[rows[closest]]]), len(closest)),
        seeds=tuple(seeds[i] for i in closest.tolist()),
        distances=tuple(distances[closest].tolist()),
        searched=len(train),
    )
