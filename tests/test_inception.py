"""The Inception extractor with a small network and its weights in torch-fidelity's place: nothing is fetched."""

from __future__ import annotations

import hashlib
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from genzoo.errors import GenzooError, OptionError, WeightsError
from genzoo.metric import Extractor, Features
from genzoo.registry import default_zoo
from genzoo_plugins.inception.extractor import Inception


class Network(nn.Module):
    """Called, loaded and fed as torch-fidelity's own."""

    def __init__(self, name: str, features_list: list[str], feature_extractor_weights_path: str) -> None:
        super().__init__()
        assert features_list == ["2048"]
        self.project = nn.Linear(3, 2048)
        self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=True))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        assert x.dtype == torch.uint8
        assert x.shape[1] == 3
        return (self.project(x.float().mean(dim=(2, 3))),)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere" / "small.pth"
    path.parent.mkdir()
    torch.save(nn.Linear(3, 2048).state_dict() | {}, path)
    state = {f"project.{key}": value for key, value in torch.load(path, weights_only=True).items()}
    torch.save(state, path)
    return path


@pytest.fixture
def small(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inception:
    """The extractor, whose weights lie in a folder instead of at an address."""
    module = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Network  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))

    class Small(Inception):
        url = weights.as_uri()
        sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()

    return Small()


def test_features_are_the_network_s(small: Inception, weights: Path, tmp_path: Path) -> None:
    """Of 8-bit pixels, grey ones in three channels; in batches as in one; from the checked file, kept for later."""
    pixels = torch.randint(256, (70, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    seen = small.over(pixels.float() / 127.5 - 1, batch=50)
    plain = Network("", ["2048"], str(weights))
    with torch.no_grad():
        expected = plain(pixels.expand(-1, 3, -1, -1))[0]
    assert torch.allclose(seen.vectors, expected, atol=1e-4)
    assert seen.vectors.shape == (70, small.width)
    assert seen.logits is None
    assert small.digest == hashlib.sha256(weights.read_bytes()).hexdigest()
    weights.unlink()
    type(small)().over(torch.zeros(1, 3, 4, 4))


def test_other_weights_are_refused(small: Inception, weights: Path) -> None:
    torch.save({"project.weight": torch.zeros(2048, 3)}, weights)
    with pytest.raises(WeightsError, match="delete it"):
        small.over(torch.zeros(1, 1, 4, 4))


def test_offline_says_what_to_do(small: Inception, weights: Path) -> None:
    weights.unlink()
    with pytest.raises(WeightsError, match=r"cannot be fetched .* put the file at .*small\.pth"):
        small.over(torch.zeros(1, 1, 4, 4))


def test_four_channels_are_refused(small: Inception) -> None:
    with pytest.raises(OptionError, match="not 4"):
        small.over(torch.zeros(1, 4, 4, 4))


def test_without_torch_fidelity_it_is_listed_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    extractor = default_zoo().make("extractor", "inception")
    assert "299" in extractor.name
    assert len(extractor.digest) == 64
    assert extractor.reference("fashion-mnist", "test") is None
    with pytest.raises(GenzooError, match=r"pip install 'genzoo\[inception\]'"):
        extractor.over(torch.zeros(1, 1, 4, 4))


def test_any_module_becomes_an_extractor() -> None:
    """As the docstring of Extractor has it."""

    class Mine(Extractor):
        name, width = "mine (5 wide)", 5
        digest = "0" * 64
        network = nn.Linear(4, 5)

        def extract(self, images: Tensor) -> Features:
            return Features(self.network(images.flatten(1)))

    mine = Mine()
    assert mine.over(torch.zeros(3, 1, 2, 2)).vectors.shape == (3, mine.width)
