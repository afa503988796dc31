"""The plain U-Net against its published layout, and its diffusion form."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from genzoo_plugins.diffusion.plain_unet import (
    PlainDiffusionUNet,
    PlainDiffusionUNetConfig,
    PlainUNet,
    PlainUNetConfig,
    sinusoidal_embedding,
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def _double(inputs: int, middle: int, outputs: int, bias: bool) -> nn.Module:
    block = nn.Module()
    block.double_conv = nn.Sequential(
        nn.Conv2d(inputs, middle, 3, 1, 1, bias=bias),
        nn.BatchNorm2d(middle),
        nn.ReLU(),
        nn.Conv2d(middle, outputs, 3, 1, 1, bias=bias),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )
    return block


class _Published(nn.Module):
    """The published layout, with every width written out for a base of 8 (the original's divided by 8)."""

    def __init__(self, inputs: int, outputs: int, bilinear: bool, bias: bool) -> None:
        super().__init__()
        self.bilinear = bilinear
        bottom = 64 if bilinear else 128
        self.inc = _double(inputs, 8, 8, bias)
        for level, (before, after) in enumerate([(8, 16), (16, 32), (32, 64), (64, bottom)], start=1):
            down = nn.Module()
            down.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), _double(before, after, after, bias))
            self.add_module(f"down{level}", down)
        plan = [(128, 64, 32), (64, 32, 16), (32, 16, 8), (16, 8, 8)] if bilinear else None
        for level in range(1, 5):
            up = nn.Module()
            if plan is not None:
                up.conv = _double(*plan[level - 1], bias)
            else:
                wide = 256 >> level
                up.up = nn.ConvTranspose2d(wide, wide // 2, 2, 2)
                up.conv = _double(wide, wide // 2, wide // 2, bias)
            self.add_module(f"up{level}", up)
        self.outc = nn.Module()
        self.outc.conv = nn.Conv2d(8, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inc.double_conv(x)
        skips = [x]
        for level in range(1, 5):
            pool, block = getattr(self, f"down{level}").maxpool_conv
            x = block.double_conv(pool(x))
            skips.append(x)
        skips.pop()
        for level in range(1, 5):
            up = getattr(self, f"up{level}")
            if self.bilinear:
                x = F.interpolate(x, size=(2 * x.shape[2], 2 * x.shape[3]), mode="bilinear", align_corners=True)
            else:
                x = up.up(x)
            skip = skips.pop()
            padded = torch.zeros(*x.shape[:2], *skip.shape[2:])
            top, left = (skip.shape[2] - x.shape[2]) // 2, (skip.shape[3] - x.shape[3]) // 2
            padded[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x
            x = up.conv.double_conv(torch.cat([skip, padded], 1))
        logits: Tensor = self.outc.conv(x)
        return logits


def _diffusion(**changes: object) -> PlainDiffusionUNet:
    settings: dict[str, object] = {"base": 16, "in_channels": 1, "out_channels": 1, "num_class_embeds": 11, **changes}
    return PlainDiffusionUNet(PlainDiffusionUNetConfig.model_validate(settings)).eval()


@pytest.mark.parametrize(
    ("bilinear", "bias", "count"),
    [
        (True, True, 17_267_393),
        (False, True, 31_043_521),
        (True, False, 17_262_977),
        (False, False, 31_037_633),
    ],
)
def test_parameter_counts(bilinear: bool, bias: bool, count: int) -> None:
    with torch.device("meta"):
        net = PlainUNet(PlainUNetConfig(in_channels=3, out_channels=1, bilinear=bilinear, bias=bias))
    assert sum(parameter.numel() for parameter in net.parameters()) == count


@pytest.mark.parametrize("size", [(32, 32), (30, 45), (16, 31)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bilinear", [True, False])
def test_published_layout_loads_with_equal_outputs(bilinear: bool, bias: bool, size: tuple[int, int]) -> None:
    theirs = _Published(3, 2, bilinear, bias)
    ours = PlainUNet(PlainUNetConfig(in_channels=3, out_channels=2, base=8, bilinear=bilinear, bias=bias))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 3, *size)
    # Training first, so that evaluation does not use the default running statistics.
    for training in (True, False):
        theirs.train(training)
        ours.train(training)
        expected = theirs(x)
        assert expected.shape == (2, 2, *size)
        torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("bilinear", [True, False])
def test_diffusion_form_concatenates_the_embedding(bilinear: bool) -> None:
    net = _diffusion(base=8, bilinear=bilinear)
    theirs = _Published(1 + 256, 1, bilinear, True).eval()
    trunk = {name: value for name, value in net.state_dict().items() if not name.startswith(("time_", "class_"))}
    theirs.load_state_dict(trunk, strict=True)
    x, times, labels = torch.randn(2, 1, 30, 45), torch.tensor([3.0, 700.0]), torch.tensor([4, 10])
    code = sinusoidal_embedding(times, 256)
    time = net.time_mlp[2](F.silu(net.time_mlp[0](code)))
    kind = net.class_mlp[2](F.silu(net.class_mlp[0](net.class_embedding.weight[labels])))
    maps = (time + kind)[:, :, None, None] * torch.ones(1, 1, 30, 45)
    expected = theirs(torch.cat([x, maps], 1))
    torch.testing.assert_close(net(x, times, class_labels=labels), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("bilinear", [True, False])
def test_diffusion_shapes(bilinear: bool) -> None:
    net = _diffusion(in_channels=3, out_channels=6, bilinear=bilinear)
    assert net.inc.double_conv[0].weight.shape == (16, 3 + 256, 3, 3)
    assert net.class_embedding.weight.shape == (11, 512)
    for size in ((30, 45), (28, 28), (16, 17)):
        output = net(torch.randn(2, 3, *size), 5, class_labels=torch.tensor([0, 10]))
        assert output.shape == (2, 6, *size)
        assert output.isfinite().all()


def test_timestep_forms_agree() -> None:
    net = _diffusion()
    x, labels = torch.randn(2, 1, 16, 16), torch.tensor([1, 2])
    expected = net(x, torch.tensor([7, 7]), class_labels=labels)
    for timestep in (7, 7.0, torch.tensor(7), torch.tensor(7.0), torch.tensor([7.0, 7.0], dtype=torch.float64)):
        torch.testing.assert_close(net(x, timestep, class_labels=labels), expected, rtol=0, atol=0)
    mixed = net(x, torch.tensor([7, 900]), class_labels=labels)
    torch.testing.assert_close(mixed[:1], expected[:1], rtol=0, atol=1e-5)
    assert (mixed[1] - expected[1]).abs().max() > 1e-4
    assert (net(x, 7.5, class_labels=labels) - expected).abs().max() > 1e-6


def test_labels_change_the_output() -> None:
    net = _diffusion()
    x = torch.randn(1, 1, 16, 16).expand(11, 1, 16, 16)
    output = net(x, 100, class_labels=torch.arange(11)).flatten(1)
    assert (torch.cdist(output, output) + torch.eye(11)).min() > 1e-4


def test_unconditional_form() -> None:
    net = _diffusion(num_class_embeds=None)
    assert not any(name.startswith("class_") for name in net.state_dict())
    assert net(torch.randn(2, 1, 16, 16), torch.tensor(3)).shape == (2, 1, 16, 16)


def test_every_parameter_is_trained() -> None:
    net = _diffusion(base=8).train()
    output = net(torch.randn(2, 1, 32, 32), torch.tensor([3, 500]), class_labels=torch.tensor([1, 10]))
    output.square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_sinusoidal_embedding_by_hand() -> None:
    code = sinusoidal_embedding(torch.tensor([0, 3, 250]), 8)
    assert code.dtype == torch.float32
    for row, time in zip(code.tolist(), (0, 3, 250), strict=True):
        angles = [time * 10000 ** (-i / 3) for i in range(4)]
        expected = [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
        assert row == pytest.approx(expected, abs=2e-5)
    with pytest.raises(ValueError, match="even"):
        sinusoidal_embedding(torch.tensor([1]), 7)
    with pytest.raises(ValueError, match="shape"):
        sinusoidal_embedding(torch.tensor(1), 8)


@pytest.mark.parametrize("bilinear", [True, False])
def test_channels_last_gives_equal_outputs(bilinear: bool) -> None:
    net = _diffusion(in_channels=3, out_channels=3, bilinear=bilinear)
    x, labels = torch.randn(2, 3, 30, 45), torch.tensor([1, 2])
    expected = net(x, 9, class_labels=labels)
    net = net.to(memory_format=torch.channels_last)
    output = net(x.contiguous(memory_format=torch.channels_last), 9, class_labels=labels)
    assert output.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-5)


def test_half_precision_and_autocast() -> None:
    net = _diffusion()
    x, labels = torch.randn(2, 1, 16, 16), torch.tensor([1, 2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert net(x, 9, class_labels=labels).dtype == torch.bfloat16
    assert net.to(torch.bfloat16)(x.bfloat16(), 9, class_labels=labels).dtype == torch.bfloat16


def test_meta_construction() -> None:
    with torch.device("meta"):
        net = PlainDiffusionUNet(PlainDiffusionUNetConfig(num_class_embeds=1001, sample_size=64))
        output = net(torch.empty(2, 3, 64, 64), 5, class_labels=torch.empty(2, dtype=torch.long))
    assert output.is_meta
    assert output.shape == (2, 3, 64, 64)
    assert net.config.sample_size == 64


def _calls() -> list[tuple[str, Callable[[], object]]]:
    net, plain, free = _diffusion(), PlainUNet(PlainUNetConfig(base=8)), _diffusion(num_class_embeds=None)
    x, labels = torch.randn(2, 1, 16, 16), torch.tensor([1, 2])
    return [
        ("cross-attention", lambda: net(x, 1, class_labels=labels, encoder_hidden_states=torch.zeros(2, 1, 8))),
        ("class-conditional.*by habit the last, 10", lambda: net(x, 1)),
        ("no classes", lambda: free(x, 1, class_labels=labels)),
        ("class_labels must be integers", lambda: net(x, 1, class_labels=labels.float())),
        ("class_labels must have shape", lambda: net(x, 1, class_labels=labels[:1])),
        ("timestep must have shape", lambda: net(x, torch.zeros(3), class_labels=labels)),
        ("timestep must have shape", lambda: net(x, torch.zeros(2, 1), class_labels=labels)),
        ("sample must have shape", lambda: net(x[0], 1, class_labels=labels)),
        ("sample must be floating point", lambda: net(x.long(), 1, class_labels=labels)),
        ("x must have shape", lambda: plain(x)),
        ("at least 16 pixels.*15x20", lambda: plain(torch.randn(2, 3, 15, 20))),
    ]


@pytest.mark.parametrize("index", range(11))
def test_bad_inputs_are_refused(index: int) -> None:
    message, call = _calls()[index]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "changes",
    [
        {"base": 0},
        {"base": 10**6},
        {"in_channels": 1.5},
        {"bilinear": 1},
        {"bias": "yes"},
        {"depth": 4},
        {"time_width": 7},
        {"class_width": 0},
        {"num_class_embeds": 0},
        {"sample_size": 0},
    ],
)
def test_bad_settings_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PlainDiffusionUNetConfig.model_validate(changes)
