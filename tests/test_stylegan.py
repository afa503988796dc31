"""StyleGAN against a plain implementation of the published layout, and against formulas worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import ValidationError
from stylegan_published import filtered, published_image, published_state, published_style
from torch import Tensor, nn

import genzoo_plugins.stylegan.recipe as recipe_module
from genzoo.data import Images
from genzoo.errors import OptionError, TrainingError, WeightsError
from genzoo.noise import Noise
from genzoo.recipe import Batch
from genzoo.registry import Zoo, default_zoo
from genzoo.train import RecipeFile, read_recipe, train
from genzoo.weights import assign, read
from genzoo_plugins.stylegan.augment import Augment, AugmentConfig
from genzoo_plugins.stylegan.discriminator import (
    Discriminator,
    DiscriminatorConfig,
    ResidualBlock,
    with_minibatch_deviation,
)
from genzoo_plugins.stylegan.model import StyleGAN
from genzoo_plugins.stylegan.network import Network, StyleGANConfig
from genzoo_plugins.stylegan.path_length import PathLength
from genzoo_plugins.stylegan.recipe import StyleGANRecipe

RECIPE = Path(recipe_module.__file__).parent / "recipes" / "fashion-mnist.yaml"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


# -- the published layout ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "widths", "taps"),
    [
        (32, [12, 10, 8, 6], [1.0, 3.0, 3.0, 1.0]),
        (64, [12, 10, 8, 6, 4], [1.0, 3.0, 3.0, 1.0]),
        (32, [7, 6, 5, 4], [1.0, 4.0, 2.0, 0.5]),  # Not symmetric: shows which way a filter is laid.
    ],
)
def test_published_weights_load_strictly_with_equal_pixels(size: int, widths: list[int], taps: list[float]) -> None:
    state = published_state(size, 16, 3, widths, taps)
    network = Network(StyleGANConfig(image_size=size, latent=16, mapping_layers=3, widths=widths))
    assign(network, state, "g_ema")
    z = torch.randn(3, 16)
    with torch.no_grad():
        w = network.map(z)
        expected_w = torch.stack([published_style(state, row) for row in z])
        torch.testing.assert_close(w, expected_w, rtol=0, atol=1e-4)
        # A latent of its own for every layer, so that none is taken for another.
        latents = w[:, None] + 0.5 * torch.randn(3, network.config.layers, 16)
        fixed = [state[f"noises.noise_{i}"] for i in range(len(network.config.noise_sides))]
        fresh = [torch.randn(3, 1, side, side) for side in network.config.noise_sides]
        for noise in (fixed, fresh):
            rows = [[layer[min(i, len(layer) - 1)] for layer in noise] for i in range(3)]
            expected = torch.stack([published_image(state, latents[i], rows[i]) for i in range(3)])
            torch.testing.assert_close(network(latents, noise), expected, rtol=0, atol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(network.fixed_noise(), fixed, strict=True))


@pytest.mark.parametrize("size", [32, 64])
def test_default_sizes_are_the_published_ones(size: int) -> None:
    with torch.device("meta"):
        network = Network(StyleGANConfig(image_size=size))
    published = published_state(size, 512, 8, [512] * (int(math.log2(size)) - 1), [1.0, 3.0, 3.0, 1.0])
    assert {name: value.shape for name, value in network.state_dict().items()} == {
        name: value.shape for name, value in published.items()
    }
    assert StyleGANConfig(image_size=1024).features == (512, 512, 512, 512, 512, 256, 128, 64, 32)


def test_a_filter_that_is_no_outer_product_is_refused() -> None:
    state = published_state(8, 4, 1, [2, 2], [1.0, 3.0, 3.0, 1.0])
    state["convs.0.conv.blur.kernel"][0, 0] += 0.5
    network = Network(StyleGANConfig(image_size=8, latent=4, mapping_layers=1, widths=(2, 2)))
    with pytest.raises(WeightsError, match="outer product"):
        network.load_state_dict(state)


# -- sizes -------------------------------------------------------------------------------------------------------------


def _config(**changes: object) -> StyleGANConfig:
    given: dict[str, object] = {
        "image_size": 14,
        "base": 7,
        "channels": 1,
        "latent": 12,
        "mapping_layers": 2,
        "widths": (8, 6),
        "num_classes": 3,
        **changes,
    }
    return StyleGANConfig.model_validate(given)


def _model(**changes: object) -> StyleGAN:
    """A model whose noise, biases and mean latents are not at zero."""
    model = StyleGAN(_config(**changes)).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith("noise.weight") or (name.endswith("bias") and "modulation" not in name):
            parameter.normal_(0, 0.3)
    model.mean_latent.normal_(0, 0.5)
    return model


def test_28_pixels_start_from_a_constant_of_7() -> None:
    config = _config(image_size=28, widths=None)
    assert config.sides == (7, 14, 28)
    assert config.noise_sides == (7, 14, 14, 28, 28)
    assert config.layers == 6
    assert StyleGANConfig().base == 4
    model = _model(image_size=28, widths=(8, 6, 4))
    images = model.generate([0, 1], labels=[0, 2])
    assert images.shape == (2, 1, 28, 28)
    assert not torch.equal(images[0], images[1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": 30}, "power of two"),
        ({"widths": (8,)}, "2 resolutions: 7, 14"),
        ({"latent": 10**6}, "less than"),
        ({"image_size": 4096}, "less than"),
    ],
)
def test_sizes_that_cannot_be_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        _config(**changes)


def test_labels_where_there_are_no_classes_are_refused_and_the_other_way_round() -> None:
    with_classes, without = Network(_config()), Network(_config(num_classes=0))
    for network, labels in ((with_classes, None), (without, torch.tensor([1]))):
        with pytest.raises(ValueError, match="labels are needed"):
            network.map(torch.randn(1, 12), labels)


# -- generation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [0, 3])
def test_an_image_depends_on_its_seed_alone(num_classes: int) -> None:
    model = _model(num_classes=num_classes)
    options = {"truncation": 0.7, "mix": 9, "layer_noise": "fresh"}
    together = model.generate([5, 1, 8, 1], **options)
    torch.testing.assert_close(together[1], together[3], rtol=0, atol=1e-5)
    for i, seed in enumerate([5, 1, 8]):
        torch.testing.assert_close(model.generate([seed], **options)[0], together[i], rtol=0, atol=1e-5)
    exact = model.generate([5, 1, 8], batch=4, exact=True, **options)
    assert torch.equal(model.generate([8], batch=4, exact=True, **options)[0], exact[2])


def test_truncation() -> None:
    model = _model()
    seeds, label = [1, 2, 3], {"labels": 2}
    plain = model.generate(seeds, **label)
    assert torch.equal(model.generate(seeds, truncation=1.0, **label), plain)
    mean = model.generate(seeds, truncation=0.0, layer_noise="fixed", **label)
    assert torch.equal(mean[0], mean[1])
    w = model.mean_latent[2].expand(1, model.config.layers, -1)
    torch.testing.assert_close(mean[:1], model.network(w, model.network.fixed_noise()).clamp(-1, 1), rtol=0, atol=1e-6)
    # "Up to noise": each seed keeps its own noise, and nothing else of its own.
    fresh = model.generate(seeds, truncation=0.0, **label)
    assert not torch.equal(fresh[0], fresh[1])
    other = model.generate(seeds, truncation=0.0, layer_noise="fixed", labels=1)
    assert not torch.equal(other[0], mean[0])
    z, labels = torch.randn(2, 12), torch.tensor([0, 2])
    ends = [model.latents(z, labels, model.options(truncation=psi)) for psi in (0.0, 0.5, 1.0)]
    torch.testing.assert_close(ends[1], (ends[0] + ends[2]) / 2)


def test_the_mean_latent_follows_each_class() -> None:
    model = _model()
    before = model.mean_latent.clone()
    w, labels = torch.randn(5, 12), torch.tensor([0, 2, 0, 0, 2])
    model.track(w, labels, 0.75)
    for label, rows in ((0, [0, 2, 3]), (2, [1, 4])):
        torch.testing.assert_close(model.mean_latent[label], 0.75 * before[label] + 0.25 * w[rows].mean(dim=0))
    assert torch.equal(model.mean_latent[1], before[1])
    free = _model(num_classes=0)
    free.track(w, None, 0.0)
    torch.testing.assert_close(free.mean_latent, w.mean(dim=0, keepdim=True))


def test_mixing() -> None:
    model = _model()
    last, label = model.config.layers - 1, {"labels": 1, "layer_noise": "fixed"}
    plain = model.generate([4, 7], **label)
    everything = model.generate([4, 7], mix=7, mix_layers=f"0-{last}", **label)
    torch.testing.assert_close(everything, plain[1:].expand(2, -1, -1, -1), rtol=0, atol=1e-5)
    # With its own seed nothing changes; with another's only those layers do.
    torch.testing.assert_close(model.generate([7], mix=7, mix_layers="1-2", **label), plain[1:], rtol=0, atol=1e-5)
    z, labels = torch.randn(2, 12), torch.tensor([1, 1])
    w = model.latents(z, labels, model.options())
    mixed = model.latents(z, labels, model.options(mix=7, mix_layers="1-2"))
    assert (mixed != w).any(dim=2).tolist() == [[False, True, True, False]] * 2
    assert torch.equal(mixed[0, 1], mixed[1, 2])
    default = model.latents(z, labels, model.options(mix=7))
    assert (default != w).any(dim=2).tolist() == [[True, True, False, False]] * 2


def test_layer_noise() -> None:
    model = _model()
    images = {kind: model.generate([3, 3, 4], labels=0, layer_noise=kind) for kind in ("fresh", "fixed", "none")}
    for kind, found in images.items():
        torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-5, msg=kind)
    assert not torch.allclose(images["fresh"], images["fixed"])
    assert not torch.allclose(images["none"], images["fixed"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"truncation": 3.0}, "truncation"),
        ({"mix": 2**32}, "mix"),
        ({"mix": 1, "mix_layers": "1-9"}, "layers 0-3"),
        ({"mix": 1, "mix_layers": "2-1"}, "layers 0-3"),
        ({"mix": 1, "mix_layers": "coarse"}, "mix_layers"),
        ({"mix_layers": "0-1"}, "give mix=SEED"),
        ({"layer_noise": "some"}, "layer_noise"),
        ({"truncatoin": 0.5}, "did you mean 'truncation'"),
    ],
)
def test_unfit_options_are_refused_on_one_line(options: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words) as caught:
        _model().generate([0], **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("space", ["w", "z"])
@pytest.mark.parametrize("layer_noise", ["fresh", "fixed"])
def test_interpolation_passes_through_the_seeds(space: str, layer_noise: str) -> None:
    model = _model()
    options = {"labels": 1, "layer_noise": layer_noise, "truncation": 0.8}
    frames = model.interpolate([3, 5, 9], 4, space=space, batch=4, **options)
    assert frames.shape == (9, 1, 14, 14)
    torch.testing.assert_close(frames[0], model.generate([3], **options)[0], rtol=0, atol=1e-5)
    if layer_noise == "fixed":
        torch.testing.assert_close(frames[::4], model.generate([3, 5, 9], **options), rtol=0, atol=1e-5)
    steps = (frames[1:] - frames[:-1]).flatten(1).norm(dim=1)
    assert steps.min() > 0
    assert steps.max() < (frames[0] - frames[4]).norm() + (frames[4] - frames[8]).norm()


def test_interpolation_between_classes() -> None:
    model = _model()
    frames = model.interpolate([3, 3], 2, labels=[0, 2], layer_noise="none")
    ends = model.generate([3, 3], labels=[0, 2], layer_noise="none")
    torch.testing.assert_close(frames[[0, 2]], ends, rtol=0, atol=1e-5)
    assert not torch.allclose(frames[1], frames[0])
    with pytest.raises(OptionError, match="no way between classes"):
        model.interpolate([3, 4], 2, space="z", labels=[0, 2])
    with pytest.raises(OptionError, match="two or more"):
        model.interpolate([3], 2)
    with pytest.raises(OptionError, match="known: w, z"):
        model.interpolate([3, 4], 2, space="x")
    assert torch.equal(
        model.interpolate([3, 4], 1, space="z"),
        model.interpolate([3, 4], 1, space="z", labels=model.label_numbers(None, Noise([3]))[0]),
    )


# -- the discriminator -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "group", "size"), [(8, 4, 4), (4, 4, 4), (6, 4, 3), (5, 4, 1), (2, 4, 2)])
def test_minibatch_deviation_by_hand(count: int, group: int, size: int) -> None:
    x = torch.randn(count, 3, 2, 2)
    y = with_minibatch_deviation(x, group)
    assert torch.equal(y[:, :3], x)
    for i in range(count):
        members = [j for j in range(count) if j % (count // size) == i % (count // size)]
        assert len(members) == size
        total = 0.0
        for value in range(12):
            numbers = [float(x[j].flatten()[value]) for j in members]
            mean = sum(numbers) / size
            total += math.sqrt(sum((number - mean) ** 2 for number in numbers) / size + 1e-8)
        torch.testing.assert_close(y[i, 3], torch.full((2, 2), total / 12))


def test_residual_block_by_hand() -> None:
    block = ResidualBlock(3, 5)
    for convolution in (block.conv1, block.conv2):
        nn.init.normal_(convolution.bias)
    x = torch.randn(2, 3, 14, 14)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = torch.outer(taps, taps)

    def blur(image: Tensor, pad: int) -> Tensor:
        return torch.stack([filtered(row, kernel, 1, pad, pad) for row in image])

    root = math.sqrt(2)
    y = F.conv2d(x, block.conv1.weight / math.sqrt(27), padding=1) + block.conv1.bias[:, None, None]
    y = F.leaky_relu(y, 0.2) * root
    y = F.conv2d(blur(y, 2), block.conv2.weight / math.sqrt(27), stride=2) + block.conv2.bias[:, None, None]
    y = F.leaky_relu(y, 0.2) * root
    skip = F.conv2d(blur(x, 1), block.skip.weight / math.sqrt(3), stride=2)
    torch.testing.assert_close(block(x), (y + skip) / root, rtol=0, atol=1e-5)


def test_discriminator_projects_the_class_and_reaches_every_weight() -> None:
    discriminator = Discriminator(_config(), DiscriminatorConfig())
    x, labels = torch.randn(4, 1, 14, 14), torch.tensor([0, 1, 2, 0])
    logits = discriminator(x, labels)
    assert logits.shape == (4,)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in discriminator.parameters())
    with torch.no_grad():
        discriminator.embed.weight.zero_()
        bare = discriminator(x, labels)
        discriminator.embed.weight[1] = discriminator.out.weight[0]
        # <e, h> / sqrt(width), where the output layer's scale is 1 / sqrt(width) as well.
        expected = torch.where(labels == 1, 2 * bare - discriminator.out.bias, bare)
        torch.testing.assert_close(discriminator(x, labels), expected)
    with pytest.raises(ValueError, match="labels are needed"):
        discriminator(x)
    with pytest.raises(ValueError, match="3 entries for 2 resolutions"):
        Discriminator(_config(), DiscriminatorConfig(widths=(4, 4, 4)))


# -- path length -------------------------------------------------------------------------------------------------------


def test_path_length_by_hand() -> None:
    matrices = torch.randn(2, 5, 12, dtype=torch.float64, requires_grad=True)  # layers, latent, pixels
    w = torch.randn(3, 2, 5, dtype=torch.float64, requires_grad=True)
    y = torch.randn(3, 1, 3, 4, dtype=torch.float64)
    regulariser = PathLength(decay=0.9).double()
    regulariser.mean.fill_(2.0)
    images = torch.einsum("nld,ldp->np", w, matrices).view(3, 1, 3, 4)
    penalty = regulariser(images, w, y)
    turned = torch.einsum("ldp,np->nld", matrices, y.flatten(1)) / math.sqrt(12)
    lengths = turned.square().sum(dim=2).mean(dim=1).sqrt()
    mean = 0.9 * 2.0 + 0.1 * lengths.mean().detach()
    torch.testing.assert_close(regulariser.mean, mean)
    expected = (lengths - mean).square().mean()
    torch.testing.assert_close(penalty, expected)
    gradients = [torch.autograd.grad(value, matrices, retain_graph=True)[0] for value in (penalty, expected)]
    torch.testing.assert_close(*gradients)


# -- augmentation ------------------------------------------------------------------------------------------------------


def _augment(**changes: object) -> Augment:
    nothing = {"translate": 0.0, "cutout": 0.0, "brightness": 0.0, "contrast": 0.0}
    given = {"probability": 1.0, "limit": 1.0, "target": None, **nothing, **changes}
    return Augment(AugmentConfig.model_validate(given))


def _stream() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_augmentation_of_strength_0_is_the_identity() -> None:
    x = torch.rand(6, 2, 8, 8) * 2 - 1
    assert torch.equal(_augment()(x, _stream()), x)
    full = {"translate": 0.3, "cutout": 0.5, "brightness": 0.5, "contrast": 0.5}
    off = _augment(probability=0.0, **full)
    assert torch.equal(off(x, _stream()), x)
    # What is drawn next does not depend on the strength.
    streams = _stream(), _stream()
    off(x, streams[0])
    _augment(**full)(x, streams[1])
    assert torch.equal(torch.rand(3, generator=streams[0]), torch.rand(3, generator=streams[1]))


def test_each_augmentation_does_what_it_is_called() -> None:
    x = torch.rand(200, 1, 10, 10) * 2 - 1
    shifts = set()
    moved = _augment(translate=0.2)(x, _stream())
    for before, after in zip(x[:, 0], moved[:, 0], strict=True):
        padded = F.pad(before, (2, 2, 2, 2), value=-1.0)
        fits = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if torch.equal(padded[2 - down : 12 - down, 2 - right : 12 - right], after)
        ]
        assert len(fits) == 1
        shifts.add(fits[0])
    assert len(shifts) == 25
    holes = (_augment(cutout=0.3)(x, _stream()) == -1).flatten(1).sum(dim=1)
    assert holes.max() == 9
    assert holes.min() >= 4
    brighter = (_augment(brightness=0.4)(x, _stream()) - x).flatten(1)
    torch.testing.assert_close(brighter, brighter[:, :1].expand_as(brighter), rtol=0, atol=1e-6)
    assert 0.3 < brighter.abs().max() <= 0.4 + 1e-6
    contrast = _augment(contrast=0.5)(x, _stream())
    torch.testing.assert_close(contrast.mean(dim=(1, 2, 3)), x.mean(dim=(1, 2, 3)), rtol=0, atol=1e-5)
    ratio = contrast.flatten(1).std(dim=1) / x.flatten(1).std(dim=1)
    assert 0.5 <= ratio.min() < 0.6
    assert 1.4 < ratio.max() <= 1.5 + 1e-5


def test_augmentation_is_differentiable() -> None:
    augment = _augment(translate=0.25, cutout=0.25, brightness=0.3, contrast=0.3).double()
    x = (torch.rand(2, 1, 4, 4, dtype=torch.float64) * 2 - 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda images: augment(images, _stream()), (x,))


def test_augmentation_share_and_adaptation() -> None:
    x = torch.rand(4000, 1, 2, 2)
    changed = _augment(probability=0.25, brightness=0.5)(x, _stream()) != x
    assert changed.any(dim=3).flatten(1).any(dim=1).float().mean() == pytest.approx(0.25, abs=0.03)
    augment = _augment(probability=0.1, target=0.6, horizon=100, limit=0.5)
    augment.adapt(torch.ones(10))
    assert float(augment.probability) == pytest.approx(0.2)
    augment.adapt(torch.tensor([1.0, 1.0, -1.0, 1.0]))
    assert float(augment.probability) == pytest.approx(0.16)
    augment.adapt(torch.ones(100))
    assert float(augment.probability) == pytest.approx(0.5)
    for _ in range(9):
        augment.adapt(-torch.ones(10))
    assert float(augment.probability) == 0.0


# -- training ----------------------------------------------------------------------------------------------------------


def _settings(**changes: object) -> dict[str, object]:
    model = _config(num_classes=2).model_dump(mode="json")
    return {
        "model": model,
        "rate": {"peak": 2e-3},
        "r1_every": 2,
        "path_length": 0.5,
        "path_every": 3,
        "augment": {"probability": 0.3, "horizon": 1000},
        **changes,
    }


def _recipe_file(**changes: object) -> RecipeFile:
    given = {
        "version": 1,
        "name": "stylegan-lite.tiny",
        "recipe": "stylegan",
        "data": {"name": "image-folder", "settings": {"size": 14, "channels": 1}},
        "steps": 6,
        "batch": 8,
        "settings": _settings(),
        "log_every": 1,
        "preview_every": 1000,
        "checkpoint_every": 2,
        **changes,
    }
    return RecipeFile.model_validate_json(json.dumps(given))


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    """Two classes of eight pictures."""
    folder = tmp_path / "pictures"
    stream = torch.Generator().manual_seed(1)
    for label in ("dark", "light"):
        (folder / label).mkdir(parents=True)
        for i in range(8):
            pixels = torch.randint(0, 100, (14, 14), generator=stream, dtype=torch.uint8) + (
                155 if label == "light" else 0
            )
            Image.fromarray(pixels.numpy()).save(folder / label / f"{i}.png")
    return str(folder)


def test_training_resumes_to_the_same_end(tmp_path: Path, pictures: str) -> None:
    zoo, file = default_zoo(), _recipe_file()
    whole = list(train(file, tmp_path / "whole", zoo=zoo, data=pictures))
    assert whole[-1].step == 6
    assert {"loss", "loss_d", "real_logit", "fake_logit", "real_sign", "augment"} <= set(whole[0].values)
    cut = tmp_path / "cut"
    list(train(file, cut, zoo=zoo, data=pictures, time_limit=0))
    list(train(file, cut, zoo=zoo, data=pictures, time_limit=0, resume=True))
    list(train(file, cut, zoo=zoo, data=pictures, resume=True))
    ends = [read(tmp_path / name / "checkpoints" / "step-00000006.safetensors") for name in ("whole", "cut")]
    assert ends[0].keys() == ends[1].keys()
    assert {"augment/probability", "path_length/mean"} <= set(ends[0])
    different = [name for name in ends[0] if not torch.equal(ends[0][name], ends[1][name])]
    assert not different
    assert float(ends[0]["path_length/mean"]) > 0
    # The result is a model like any other.
    loaded = zoo.load(str(tmp_path / "whole" / "model"))
    assert isinstance(loaded, StyleGAN)
    assert loaded.generate([0, 1], labels=["dark", "light"], truncation=0.5).shape == (2, 1, 14, 14)


def test_training_learns_which_class_is_light() -> None:
    count = 64
    pixels = torch.cat([torch.full((count, 1, 14, 14), 20), torch.full((count, 1, 14, 14), 235)]).to(torch.uint8)
    data = Images(pixels, torch.arange(2).repeat_interleave(count), ("dark", "light"), "shades", "train")
    given = _settings(path_length=0.0, augment={"probability": 0.1, "target": None}, rate={"peak": 5e-3}, average=0.9)
    config = StyleGANRecipe.Config.model_validate_json(json.dumps(given))
    recipe = StyleGANRecipe(config, data, steps=150, device=torch.device("cpu"))
    order = torch.Generator().manual_seed(0)
    for step in range(150):
        rows = torch.randint(2 * count, (16,), generator=order)
        values = recipe.step(Batch(data.floats(rows), data.labels[rows], step), order)
        assert all(math.isfinite(value) for value in values.values())
    images = recipe.trained().module.generate(range(16), labels=[0] * 8 + [1] * 8)
    assert images[:8].mean() < -0.4
    assert images[8:].mean() > 0.4


def test_what_does_not_fit_the_data_is_refused() -> None:
    data = Images(torch.zeros(4, 1, 28, 28, dtype=torch.uint8), torch.zeros(4).long(), ("a", "b"), "blanks", "train")
    device = torch.device("cpu")
    for model, words in (
        (_config(num_classes=2), "images of"),
        (_config(image_size=28, widths=(4, 4, 4)), "num_classes is 3, but blanks has 2"),
    ):
        config = StyleGANRecipe.Config(model=model, rate={"peak": 1e-3})
        with pytest.raises(TrainingError, match=words):
            StyleGANRecipe(config, data, steps=1, device=device)
    fits = _config(image_size=28, widths=(4, 4, 4), num_classes=2)
    config = StyleGANRecipe.Config(model=fits, discriminator={"widths": [4]}, rate={"peak": 1e-3})
    with pytest.raises(TrainingError, match="1 entries for 3 resolutions"):
        StyleGANRecipe(config, data, steps=1, device=device)


def test_the_shipped_recipe_is_readable_and_runs() -> None:
    file = read_recipe(RECIPE)
    assert file.name == "stylegan-lite.fashion-mnist"
    cls = Zoo.discover().find("recipe", file.recipe)
    assert cls is StyleGANRecipe
    config = cls.Config.model_validate_json(json.dumps(file.settings), strict=True)
    pixels = torch.randint(0, 256, (8, 1, 28, 28), dtype=torch.uint8)
    data = Images(pixels, torch.arange(8), tuple("abcdefghij"), "noise", "train")
    recipe = StyleGANRecipe(config, data, steps=file.steps, device=torch.device("cpu"))
    values = recipe.step(Batch(data.floats(), data.labels, 0), torch.Generator().manual_seed(0))
    assert all(math.isfinite(value) for value in values.values())
    assert recipe.preview().shape == (40, 1, 28, 28)
