"""The DCGAN networks against the published layout, and against formulas worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from genzoo.losses import r1_penalty
from genzoo_plugins.dcgan.network import DCGANConfig, Discriminator, Network


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def _published_generator(nz: int, ngf: int, nc: int) -> nn.Module:
    """The 64-pixel netG of the published script, written out flat."""
    net = nn.Module()
    net.main = nn.Sequential(
        nn.ConvTranspose2d(nz, ngf * 8, kernel_size=4, stride=1, padding=0, bias=False),
        nn.BatchNorm2d(ngf * 8),
        nn.ReLU(),
        nn.ConvTranspose2d(ngf * 8, ngf * 4, kernel_size=4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(ngf * 4),
        nn.ReLU(),
        nn.ConvTranspose2d(ngf * 4, ngf * 2, kernel_size=4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(ngf * 2),
        nn.ReLU(),
        nn.ConvTranspose2d(ngf * 2, ngf, kernel_size=4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(ngf),
        nn.ReLU(),
        nn.ConvTranspose2d(ngf, nc, kernel_size=4, stride=2, padding=1, bias=False),
        nn.Tanh(),
    )
    return net


def _published_discriminator(ndf: int, nc: int) -> nn.Module:
    """The 64-pixel netD of the published script, with its Sigmoid."""
    net = nn.Module()
    net.main = nn.Sequential(
        nn.Conv2d(nc, ndf, kernel_size=4, stride=2, padding=1, bias=False),
        nn.LeakyReLU(0.2),
        nn.Conv2d(ndf, ndf * 2, kernel_size=4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(ndf * 2),
        nn.LeakyReLU(0.2),
        nn.Conv2d(ndf * 2, ndf * 4, kernel_size=4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(ndf * 4),
        nn.LeakyReLU(0.2),
        nn.Conv2d(ndf * 4, ndf * 8, kernel_size=4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(ndf * 8),
        nn.LeakyReLU(0.2),
        nn.Conv2d(ndf * 8, 1, kernel_size=4, stride=1, padding=0, bias=False),
        nn.Sigmoid(),
    )
    return net


def _small(**changes: object) -> DCGANConfig:
    settings: dict[str, object] = {"channels": 1, "latent": 12, "width_g": 8, "width_d": 8, **changes}
    return DCGANConfig.model_validate(settings)


def _count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_parameter_counts_at_full_width() -> None:
    with torch.device("meta"):
        assert _count(Network(DCGANConfig())) == 3_576_704
        assert _count(Discriminator(DCGANConfig())) == 2_765_568


def test_published_generator_loads_with_equal_outputs() -> None:
    theirs = _published_generator(20, 8, 3)
    ours = Network(DCGANConfig(latent=20, width_g=8))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    z = torch.randn(5, 20)
    # Training first, so that evaluation does not use the default running statistics.
    for training in (True, False):
        theirs.train(training)
        ours.train(training)
        torch.testing.assert_close(ours(z), theirs.main(z[:, :, None, None]), rtol=0, atol=1e-6)


def test_published_discriminator_loads_with_equal_outputs() -> None:
    theirs = _published_discriminator(8, 3)
    ours = Discriminator(DCGANConfig(width_d=8))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.rand(5, 3, 64, 64) * 2 - 1
    for training in (True, False):
        theirs.train(training)
        ours.train(training)
        torch.testing.assert_close(ours(x).sigmoid(), theirs.main(x).flatten(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("num_classes", [None, 10])
@pytest.mark.parametrize("spectral", [False, True])
@pytest.mark.parametrize(("size", "convolutions"), [(28, 3), (32, 4), (64, 5)])
def test_shapes_ranges_and_layers(size: int, convolutions: int, spectral: bool, num_classes: int | None) -> None:
    config = _small(image_size=size, channels=2, num_classes=num_classes, spectral_norm=spectral)
    generator, discriminator = Network(config), Discriminator(config)
    assert sum(isinstance(layer, nn.ConvTranspose2d) for layer in generator.main) == convolutions
    assert sum(isinstance(layer, nn.Conv2d) for layer in discriminator.main) == convolutions
    labels = None if num_classes is None else torch.tensor([0, 4, 9])
    images = generator(torch.randn(3, 12), labels)
    assert images.shape == (3, 2, size, size)
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1
    logits = discriminator(images, labels)
    assert logits.shape == (3,)
    logits.sum().backward()
    for net in (generator, discriminator):
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_28_pixels_start_from_a_seed_of_7() -> None:
    config = _small(image_size=28, num_classes=10)
    generator, discriminator = Network(config), Discriminator(config)
    assert generator.main[0].weight.shape == (24, 16, 7, 7)  # The embedding doubles the 12 inputs.
    assert discriminator.main[-1].weight.shape == (1, 16, 7, 7)
    assert [name for name in discriminator.state_dict() if name.endswith(".weight")] == [
        "main.0.weight",
        "main.2.weight",
        "main.3.weight",
        "main.5.weight",
        "embed.weight",
    ]


def test_initial_statistics() -> None:
    config = DCGANConfig(width_g=32, width_d=32, num_classes=10)
    for net in (Network(config), Discriminator(config)):
        norms = []
        for layer in net.main:
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                assert layer.bias is None
                tolerance = 5 * 0.02 / math.sqrt(layer.weight.numel())
                assert layer.weight.mean().item() == pytest.approx(0, abs=tolerance)
                assert layer.weight.std().item() == pytest.approx(0.02, abs=tolerance)
            elif isinstance(layer, nn.BatchNorm2d):
                norms.append(layer.weight)
                assert not layer.bias.any()
        scales = torch.cat(norms)
        tolerance = 5 * 0.02 / math.sqrt(scales.numel())
        assert scales.mean().item() == pytest.approx(1, abs=tolerance)
        assert scales.std().item() == pytest.approx(0.02, abs=tolerance)
    assert Network(config).embed.weight.std().item() == pytest.approx(1, abs=0.1)
    assert Discriminator(config).embed.weight.std().item() == pytest.approx(0.02, abs=0.001)


def test_labels_change_the_images() -> None:
    net = Network(_small(image_size=28, num_classes=10)).eval()
    z = torch.randn(1, 12).expand(10, 12)
    images = net(z, torch.arange(10))
    distances = torch.cdist(images.flatten(1), images.flatten(1))
    assert (distances + torch.eye(10)).min() > 1e-3


def test_projection_is_a_last_convolution_for_each_class() -> None:
    net = Discriminator(_small(image_size=32, num_classes=4)).eval()
    x = torch.rand(4, 1, 32, 32) * 2 - 1
    labels = torch.tensor([2, 0, 3, 1])
    logits = net(x, labels)
    features = net.main[:-1](x)
    for item, label in enumerate(labels.tolist()):
        weight = net.main[-1].weight + net.embed.weight[label].view(1, 32, 4, 4)
        expected = nn.functional.conv2d(features[item : item + 1], weight).flatten()
        torch.testing.assert_close(logits[item : item + 1], expected, rtol=0, atol=1e-5)
    assert (net(x, labels.roll(1)) - logits).abs().min() > 1e-4


@pytest.mark.parametrize("kind", [Network, Discriminator])
def test_channels_last_gives_equal_outputs(kind: type[nn.Module]) -> None:
    net = kind(_small(image_size=28, channels=3, num_classes=10)).eval()
    labels = torch.tensor([1, 2])
    value = torch.randn(2, 12) if kind is Network else torch.rand(2, 3, 28, 28)
    expected = net(value, labels)
    net = net.to(memory_format=torch.channels_last)
    if value.ndim == 4:
        value = value.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(net(value, labels), expected, rtol=0, atol=1e-5)


def test_spectral_norm_bounds_every_weight_and_drops_batch_norm() -> None:
    net = Discriminator(_small(image_size=28, num_classes=10, spectral_norm=True))
    x, labels = torch.rand(2, 1, 28, 28), torch.tensor([1, 2])
    for _ in range(30):  # Every forward pass in training mode is one power iteration.
        net(x, labels)
    net.eval()
    layers = [layer for layer in net.main if isinstance(layer, nn.Conv2d)]
    for layer in [*layers, net.embed]:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in net.modules())
    assert [layer.bias is not None for layer in layers] == [False, True, False]
    # Without batch norm, an item's logit does not depend on the others.
    torch.testing.assert_close(net(x[:1], labels[:1]), net(x, labels)[:1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("spectral", [False, True])
def test_meta_construction_and_late_initialisation(spectral: bool) -> None:
    config = _small(image_size=28, num_classes=10, spectral_norm=spectral)
    labels = torch.tensor([1, 2])
    for kind, value in ((Network, torch.randn(2, 12)), (Discriminator, torch.rand(2, 1, 28, 28))):
        with torch.device("meta"):
            net = kind(config)
            assert net(value.to("meta"), labels.to("meta")).device.type == "meta"
        assert all(tensor.is_meta for tensor in net.state_dict().values())
        net = net.to_empty(device="cpu")
        net.reset_parameters()
        assert net(value, labels).isfinite().all()
        fresh = kind(config)
        fresh.load_state_dict(net.state_dict(), strict=True)
        torch.testing.assert_close(fresh.eval()(value, labels), net.eval()(value, labels))


def test_reset_keeps_the_parameters_that_an_optimiser_holds() -> None:
    net = Discriminator(_small(image_size=28, num_classes=3, spectral_norm=True))
    before = {name: id(parameter) for name, parameter in net.named_parameters()}
    net.reset_parameters()
    assert {name: id(parameter) for name, parameter in net.named_parameters()} == before


@pytest.mark.parametrize(
    "changes",
    [
        {"image_size": 48},
        {"latent": 0},
        {"latent": 10**9},
        {"width_g": 10**6},
        {"width_d": -1},
        {"channels": "3"},
        {"num_classes": 0},
        {"spectral_norm": 1},
        {"depth": 3},
    ],
)
def test_bad_settings_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DCGANConfig.model_validate(changes)


def test_bad_inputs_are_refused() -> None:
    plain, classed = _small(image_size=28), _small(image_size=28, num_classes=10)
    z, x, labels = torch.randn(2, 12), torch.rand(2, 1, 28, 28), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="z must have shape"):
        Network(plain)(z[:, :, None, None])
    with pytest.raises(ValueError, match="x must have shape"):
        Discriminator(plain)(x[..., :27])
    for kind, value in ((Network, z), (Discriminator, x)):
        with pytest.raises(ValueError, match="no classes"):
            kind(plain)(value, labels)
        with pytest.raises(ValueError, match="class-conditional"):
            kind(classed)(value)
        with pytest.raises(ValueError, match="must be integers"):
            kind(classed)(value, labels.float())
        with pytest.raises(ValueError, match="one for each item"):
            kind(classed)(value, labels[:1])


def test_r1_penalty_trains_the_discriminator() -> None:
    net = Discriminator(_small(image_size=28))
    images = torch.rand(3, 1, 28, 28, requires_grad=True)
    r1_penalty(net(images), images).backward()
    assert net.main[0].weight.grad is not None
    assert net.main[0].weight.grad.abs().sum() > 0
