"""Fashion-MNIST (Xiao, Rasul & Vollgraf 2017): 70,000 grey 28x28 pictures of clothing in 10 classes, MIT licence."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

import torch
from torch import Tensor

from genzoo.data import Dataset, Images, Split
from genzoo.errors import DataError
from genzoo.files import open_regular

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

#: Where it is looked for when no path is given: a variable, then where Debian's package puts it.
VARIABLE = "GENZOO_FASHION_MNIST"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
STEMS = {"train": "train", "test": "t10k"}


def read_idx(path: Path, dimensions: int) -> Tensor:
    """A gzipped IDX file of unsigned bytes as uint8 of its own shape."""
    try:
        with open_regular(path, DataError) as file, gzip.GzipFile(fileobj=file) as unzipped:
            header = unzipped.read(4 + 4 * dimensions)
            if header[:4] != bytes((0, 0, 8, dimensions)):
                raise DataError(f"{path}: not an IDX file of unsigned bytes in {dimensions} dimensions")
            shape = [int.from_bytes(header[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions)]
            count = 1
            for size in shape:
                count *= size
            if count > 1 << 30:
                raise DataError(f"{path}: claims {count} bytes; at most {1 << 30} are read")
            body = unzipped.read(count + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a readable gzip file: {error}") from None
    if len(body) != count:
        raise DataError(
            f"{path}: holds {'more than ' if len(body) > count else ''}{min(len(body), count)} of {count} bytes"
        )
    return torch.frombuffer(bytearray(body), dtype=torch.uint8).reshape(shape)


class FashionMNIST(Dataset):
    """The folder of four idx.gz files; found where Debian's dataset-fashion-mnist puts it, or by ``path``."""

    path: str | None = None

    def folder(self) -> Path:
        """Where the files are; raises DataError that says how to get them."""
        chosen = self.path or os.environ.get(VARIABLE)
        folder = Path(chosen) if chosen else DEBIAN
        if not folder.is_dir():
            raise DataError(
                f"{folder}: no Fashion-MNIST here; type 'apt-get install dataset-fashion-mnist', or give --data FOLDER "
                f"(or {VARIABLE}) with the four idx.gz files of github.com/zalandoresearch/fashion-mnist"
            )
        return folder

    def load(self, split: Split) -> Images:
        folder, stem = self.folder(), STEMS[split]
        pixels = read_idx(folder / f"{stem}-images-idx3-ubyte.gz", 3)
        labels = read_idx(folder / f"{stem}-labels-idx1-ubyte.gz", 1).long()
        if len(labels) != len(pixels) or (len(labels) and int(labels.max()) >= len(CLASSES)):
            raise DataError(f"{folder}: the labels do not belong to the images")
        return Images(pixels[:, None], labels, CLASSES, "Fashion-MNIST", split)
