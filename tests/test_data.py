"""Data sets: what is read, and what is refused by name."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch
from tiny import image_folder

from genzoo.errors import DataError
from genzoo.registry import default_zoo
from genzoo_plugins.datasets.fashion_mnist import CLASSES, FashionMNIST, read_idx
from genzoo_plugins.datasets.image_folder import ImageFolder
from genzoo_plugins.metrics import classifier


def write_idx(path: Path, pixels: torch.Tensor) -> None:
    header = bytes((0, 0, 8, pixels.ndim)) + b"".join(size.to_bytes(4, "big") for size in pixels.shape)
    path.write_bytes(gzip.compress(header + bytes(pixels.flatten().tolist())))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for stem, count in (("train", 12), ("t10k", 5)):
        stream = torch.Generator().manual_seed(count)
        write_idx(tmp_path / f"{stem}-images-idx3-ubyte.gz", torch.randint(256, (count, 28, 28), generator=stream))
        write_idx(tmp_path / f"{stem}-labels-idx1-ubyte.gz", torch.arange(count) % 10)
    return tmp_path


def test_the_data_its_extractor_and_the_cards_number_the_classes_alike() -> None:
    """None of them imports another."""
    assert classifier.CLASSES == CLASSES
    assert {card.classes for card in default_zoo().cards() if card.data == "fashion-mnist"} == {CLASSES}


def test_reads_idx(folder: Path) -> None:
    images = FashionMNIST(path=str(folder)).load("train")
    assert images.pixels.shape == (12, 1, 28, 28)
    assert images.labels.tolist() == [i % 10 for i in range(12)]
    assert images.classes == CLASSES
    assert images.floats().min() >= -1
    assert images.floats().max() <= 1
    assert len(FashionMNIST(path=str(folder)).load("test")) == 5


def test_the_variable_names_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENZOO_FASHION_MNIST", str(folder))
    assert len(FashionMNIST().load("test")) == 5


def test_missing_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="apt-get install dataset-fashion-mnist"):
        FashionMNIST(path=str(tmp_path / "no")).load("train")


@pytest.mark.parametrize("cut", [0, 1, 3, 9, 20, -1])
def test_cut_short_is_an_error_that_names_the_file(folder: Path, cut: int) -> None:
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match="train-images"):
        FashionMNIST(path=str(folder)).load("train")


def test_labels_of_other_images_are_refused(folder: Path) -> None:
    write_idx(folder / "train-labels-idx1-ubyte.gz", torch.arange(11) % 10)
    with pytest.raises(DataError, match="do not belong"):
        FashionMNIST(path=str(folder)).load("train")


def test_a_header_that_claims_a_terabyte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes((0, 0, 8, 3)) + b"\x7f\xff\xff\xff" * 3))
    with pytest.raises(DataError, match="at most"):
        read_idx(path, 3)


def test_image_folder(tmp_path: Path) -> None:
    images = ImageFolder(path=str(image_folder(tmp_path / "data")), size=8, channels=1).load("train")
    assert images.pixels.shape == (32, 1, 8, 8)
    assert images.classes == ("left", "right")
    left = images.pixels[images.labels == 0].float().mean(0)[0]
    assert left[:, :4].mean() > left[:, 4:].mean() + 50


def test_image_folder_scales_crops_and_flattens_transparency(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "a").mkdir()
    Image.new("RGBA", (40, 20), (0, 0, 0, 0)).save(tmp_path / "a" / "clear.png")
    images = ImageFolder(path=str(tmp_path), size=10).load("train")
    assert images.shape == (3, 10, 10)
    assert images.pixels.min() == 255


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 30])
def test_an_unreadable_picture_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "odd.png").write_bytes(content)
    with pytest.raises(DataError, match=r"odd\.png"):
        ImageFolder(path=str(tmp_path), size=8).load("train")


def test_no_pictures_and_no_test_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pictures"):
        ImageFolder(path=str(tmp_path), size=8).load("train")
    with pytest.raises(DataError, match="no test split"):
        ImageFolder(path=str(tmp_path), size=8).load("test")
