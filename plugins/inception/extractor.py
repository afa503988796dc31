"""Inception v3 as FID uses it: TensorFlow's network of 2015, rebuilt by torch-fidelity, with its weights."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from genzoo.convert import convert
from genzoo.errors import GenzooError, OptionError, WeightsError
from genzoo.files import sha256_of
from genzoo.images import to_bytes
from genzoo.metric import Extractor, Features
from genzoo.weights import read

#: Images that go through at once: each takes about 6 MB of activations.
BATCH = 32


class Inception(Extractor):
    """The 2048-wide pooled features that FID is defined on (Heusel et al. 2017).

    torch-fidelity's network does the resizing, by TensorFlow 1's bilinear rule, from 8-bit pixels; grey images are
    shown in three equal channels. It has no opinion of the class: the 1,008 of its own are not those of a data set.
    Nothing is imported or fetched before the first image, so a zoo may list it where it cannot run.

    Attributes:
        url, sha256: of the weights, about 96 MB, kept where torch-fidelity keeps them too.
    """

    name = "inception (2048 wide; torch-fidelity, TensorFlow 1 bilinear to 299x299)"
    width = 2048
    url: ClassVar[str] = (
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
    )
    sha256: ClassVar[str] = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

    @property
    def digest(self) -> str:
        return self.sha256

    def extract(self, images: Tensor) -> Features:
        """Raises GenzooError where the network or its weights are not at hand; says what to install or fetch."""
        if images.shape[1] not in (1, 3):
            raise OptionError(
                f"inception sees images of 1 or 3 channels, not {images.shape[1]}; choose another extractor"
            )
        pixels = to_bytes(images).expand(-1, 3, -1, -1)
        return Features(torch.cat([self.network(part)[0].float() for part in torch.split(pixels, BATCH)]))

    @functools.cached_property
    def network(self) -> nn.Module:
        """torch-fidelity's: uint8 (N, 3, H, W) -> a tuple of float32 (N, 2048)."""
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except Exception as error:  # a torchvision that does not fit raises whatever it likes
            raise GenzooError(
                "the extractor inception needs torch-fidelity, and a torchvision made for this torch "
                f"({' '.join(str(error).split())}); pip install 'genzoo[inception]'"
            ) from error
        with tempfile.TemporaryDirectory() as folder:
            # It unpickles its weights without restraint. What it is given was written here, from tensors alone.
            tensors, plain = Path(folder) / "weights.safetensors", Path(folder) / "weights.pth"
            convert(fetched(self.url, self.sha256), tensors)
            torch.save({key: tensor.clone() for key, tensor in read(tensors).items()}, plain)
            network: nn.Module = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(plain)
            )
        return network.eval().requires_grad_(False)


def fetched(url: str, sha256: str) -> Path:
    """The file of that address among torch's downloads, fetched where it is missing, and checked every time.

    Raises WeightsError where it cannot be fetched, or is another.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), progress=False)
        except OSError as error:
            reason = " ".join(str(error).split())
            raise WeightsError(f"{url} cannot be fetched ({reason}); go online, or put the file at {path}") from None
    if (found := sha256_of(path, WeightsError)) != sha256:
        raise WeightsError(f"{path}: sha256 {found[:12]}..., not {sha256[:12]}...; delete it, and it is fetched again")
    return path
