"""The diffusion recipe: it learns, for every prediction and network, and its parts are what the papers say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from genzoo.data import Batches, Images
from genzoo.denoiser import Prediction, target, to_x0
from genzoo.errors import TrainingError
from genzoo.recipe import Batch, update_average
from genzoo.schedule import ScheduleConfig
from genzoo_plugins.diffusion.model import Diffusion, DiffusionConfig
from genzoo_plugins.diffusion.recipe import DiffusionRecipe, DiffusionRecipeConfig, min_snr_weight

PREDICTIONS: list[Prediction] = ["eps", "v", "x0"]

UNET: dict[str, Any] = {
    "kind": "unet",
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": [16, 32],
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "add_attention": False,
    "num_class_embeds": 3,
}
PLAIN: dict[str, Any] = {
    "kind": "plain-unet",
    "sample_size": 16,
    "in_channels": 1,
    "out_channels": 1,
    "base": 8,
    "time_width": 16,
    "class_width": 8,
    "num_class_embeds": 3,
}


def halves(size: int = 8, count: int = 64) -> Images:
    """Class 0 is bright above and dark below, class 1 the other way round, both at several strengths."""
    labels = torch.arange(count) % 2
    strength = torch.linspace(0.5, 0.9, count)
    above = torch.ones(size, size)
    above[size // 2 :] = -1
    pixels = (1 - 2 * labels)[:, None, None] * strength[:, None, None] * above
    return Images((127.5 * (pixels + 1)).round().byte()[:, None], labels, ("above", "below"), "halves", "train")


def make(
    images: Images, network: dict[str, Any] = UNET, steps: int = 60, model: dict[str, Any] | None = None, **more: Any
) -> DiffusionRecipe:
    settings = {
        "model": {
            "network": network,
            "num_classes": 2,
            "schedule": {"kind": "cosine", "steps": 100},
            "prediction": "v",
            **(model or {}),
        },
        "rate": {"peak": 3e-3, "warmup": 5},
        **more,
    }
    config = DiffusionRecipeConfig.model_validate(settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DiffusionRecipe(config, images, steps=steps, device=torch.device("cpu"))


def batch_of(images: Images, rows: Tensor, step: int) -> Batch:
    return Batch(images.floats(rows), images.labels[rows], step)


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def train(recipe: DiffusionRecipe, images: Images, steps: int, size: int = 16) -> list[dict[str, float]]:
    batches = Batches(len(images), size, seed=0)
    return [recipe.step(batch_of(images, batches[step], step), stream(step)) for step in range(steps)]


def held_loss(recipe: DiffusionRecipe, images: Images) -> float:
    """The loss over all images, with noise and times that training never sees, in evaluation mode."""
    recipe.model.eval()
    with torch.no_grad():
        losses = [recipe.loss(batch_of(images, torch.arange(len(images)), 0), stream(10_000 + i)) for i in range(2)]
    recipe.model.train()
    return float(torch.stack(losses).mean())


class Answer(nn.Module):
    """A network that gives what it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[Tensor, Tensor, Tensor | None]] = []
        self.answer: Tensor | None = None

    def forward(self, x: Tensor, timestep: Tensor, class_labels: Tensor | None = None) -> Tensor:
        self.asked.append((x, timestep, class_labels))
        return torch.zeros_like(x) if self.answer is None else self.answer


# -- it learns -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("prediction", "min_snr"), [("eps", None), ("v", None), ("x0", None), ("eps", 5.0)])
def test_the_loss_falls(prediction: Prediction, min_snr: float | None) -> None:
    images = halves()
    recipe = make(images, model={"prediction": prediction}, min_snr=min_snr)
    before = held_loss(recipe, images)
    values = train(recipe, images, 30)
    assert held_loss(recipe, images) < 0.7 * before
    assert all(set(value) == {"loss", "gradient_norm"} for value in values)


def sides(images: Tensor) -> Tensor:
    """Brightness above less that below: about 1.4 for class 0 and -1.4 for class 1."""
    half = images.shape[-2] // 2
    return images[..., :half, :].mean((1, 2, 3)) - images[..., half:, :].mean((1, 2, 3))


@pytest.mark.parametrize("network", [UNET, PLAIN], ids=["unet", "plain-unet"])
def test_both_networks_train_and_sample_by_one_recipe(network: dict[str, Any]) -> None:
    """The pictures are of the class that was asked for, with either scheduler, and guidance keeps to it."""
    images = halves(size=network["sample_size"])
    recipe = make(images, network, steps=100, rate={"peak": 4e-3, "warmup": 10, "shape": "trapezoid"}, average=0.9)
    before = held_loss(recipe, images)
    train(recipe, images, 100)
    assert held_loss(recipe, images) < 0.7 * before
    model = recipe.trained().module
    assert isinstance(model, Diffusion)
    for scheduler, guidance in (("ddim:spacing=trailing", 1.0), ("ddpm", 1.0), ("ddim", 2.0)):
        options: dict[str, Any] = {"steps": 10, "scheduler": scheduler, "guidance": guidance}
        made = model.generate(range(8), labels=[0, 1] * 4, **options)
        assert bool((sides(made)[0::2] > 0.4).all()), (scheduler, guidance)
        assert bool((sides(made)[1::2] < -0.4).all()), (scheduler, guidance)


def test_mixed_precision_trains() -> None:
    images = halves()
    recipe = make(images, precision="bf16")
    dtypes: set[torch.dtype] = set()
    recipe.model.denoiser.network.conv_in.register_forward_hook(lambda *given: dtypes.add(given[-1].dtype))
    before = held_loss(recipe, images)
    train(recipe, images, 30)
    assert held_loss(recipe, images) < 0.7 * before
    assert dtypes == {torch.bfloat16}, "the convolutions ran in bfloat16"
    assert {p.dtype for p in recipe.model.parameters()} == {torch.float32}, "the weights did not"


def test_full_precision_is_full() -> None:
    images = halves()
    recipe = make(images)
    dtypes: set[torch.dtype] = set()
    recipe.model.denoiser.network.conv_in.register_forward_hook(lambda *given: dtypes.add(given[-1].dtype))
    train(recipe, images, 1)
    assert dtypes == {torch.float32}


def test_unconditional_and_folded_models_train() -> None:
    images = halves(size=16)
    network = {**UNET, "in_channels": 4, "out_channels": 4, "num_class_embeds": None}
    recipe = make(images, network, model={"num_classes": 0, "patch": 2})
    before = held_loss(recipe, images)
    train(recipe, images, 50)
    assert held_loss(recipe, images) < 0.7 * before
    assert recipe.trained().module.generate(range(2), steps=5).shape == (2, 1, 16, 16)
    assert recipe.preview().shape == (40, 1, 16, 16)


# -- the loss --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_loss_is_the_squared_error_of_the_prediction(prediction: Prediction, patch: int) -> None:
    """Against numbers drawn here again: what the network was shown is x_t, and the target's answer costs nothing."""
    images = halves(size=8 * patch)
    channels = patch**2
    network = {**UNET, "in_channels": channels, "out_channels": channels}
    recipe = make(images, network, model={"prediction": prediction, "patch": patch}, condition_dropout=0.0)
    answer = Answer()
    recipe.model.denoiser.network = answer
    batch = batch_of(images, torch.arange(6), 0)
    loss = recipe.loss(batch, stream(5))

    again = stream(5)
    t = torch.randint(1, 101, (6,), generator=again)
    folded = torch.nn.functional.pixel_unshuffle(batch.images, patch)
    eps = torch.randn(folded.shape, generator=again)
    schedule = ScheduleConfig(kind="cosine", steps=100)
    abar = schedule.table[t - 1].float().view(-1, 1, 1, 1)
    ((x, timestep, labels),) = answer.asked
    torch.testing.assert_close(x, abar.sqrt() * folded + (1 - abar).sqrt() * eps, rtol=1e-5, atol=1e-6)
    assert torch.equal(timestep, (t - 1).float())
    assert labels is not None
    assert torch.equal(labels, batch.labels)
    wanted = target(folded, eps, abar.sqrt(), (1 - abar).sqrt(), prediction)
    torch.testing.assert_close(loss, (wanted**2).mean(), rtol=1e-5, atol=1e-6)
    answer.answer = wanted
    assert float(recipe.loss(batch, stream(5))) < 1e-10


def test_every_time_is_drawn_alike() -> None:
    images = halves()
    recipe = make(images, model={"schedule": {"steps": 10, "beta_end": 0.5}})
    answer = Answer()
    recipe.model.denoiser.network = answer
    for seed in range(100):
        recipe.loss(batch_of(images, torch.arange(64), 0), stream(seed))
    counts = torch.stack([told for _, told, _ in answer.asked]).long().flatten().bincount(minlength=10).double()
    assert len(counts) == 10, "timesteps 0 to 9 and no other"
    # Chi-squared with 9 degrees of freedom exceeds 27.9 once in a thousand.
    assert float(((counts - 640) ** 2 / 640).sum()) < 27.9


def test_the_loss_depends_on_its_stream_alone() -> None:
    images = halves()
    recipe = make(images)
    batch = batch_of(images, torch.arange(16), 0)
    torch.manual_seed(1)
    one = recipe.loss(batch, stream(3))
    torch.manual_seed(2)
    assert torch.equal(recipe.loss(batch, stream(3)), one)
    assert not torch.equal(recipe.loss(batch, stream(4)), one)


@given(angle=st.floats(0.01, 1.56), gamma=st.sampled_from([1.0, 5.0, 20.0]), seed=st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_min_snr_weighs_the_error_of_x0_alike(angle: float, gamma: float, seed: int) -> None:
    """One and the same error of x_0, told as eps, v, x_0, flow or edm, costs min(SNR, gamma) times its square."""
    level = torch.tensor(angle, dtype=torch.float64)
    alpha, sigma = level.cos(), level.sin()
    x0, eps, off = torch.randn(3, 1, 1, 2, 2, generator=stream(seed), dtype=torch.float64)
    x = alpha * x0 + sigma * eps
    expected = torch.clamp((alpha / sigma) ** 2, max=gamma) * off**2
    for prediction in (*PREDICTIONS, "flow", "edm"):
        wrong = target(x0 + off, (x - alpha * (x0 + off)) / sigma, alpha, sigma, prediction)
        torch.testing.assert_close(to_x0(wrong, x, alpha, sigma, prediction), x0 + off, rtol=1e-9, atol=1e-9)
        error = (wrong - target(x0, eps, alpha, sigma, prediction)) ** 2
        weight = min_snr_weight(alpha, sigma, gamma, prediction)
        torch.testing.assert_close(weight * error, expected, rtol=1e-8, atol=1e-12)


def test_min_snr_at_pure_noise() -> None:
    """SNR 0: v and x_0 count nothing; eps tends to 1, as min(SNR, gamma) / SNR does."""
    zero, one = torch.zeros(1), torch.ones(1)
    assert [float(min_snr_weight(zero, one, 5.0, prediction)) for prediction in PREDICTIONS] == [1.0, 0.0, 0.0]
    tiny = torch.full((1,), 1e-3)
    assert float(min_snr_weight(tiny, one, 5.0, "eps")) == 1.0


def test_min_snr_weighs_the_loss() -> None:
    images = halves()
    plain, weighed = make(images, model={"prediction": "x0"}), make(images, model={"prediction": "x0"}, min_snr=5.0)
    for recipe in (plain, weighed):
        recipe.model.denoiser.network = Answer()
    batch = batch_of(images, torch.arange(1), 0)
    for seed in range(5):
        t = torch.randint(1, 101, (1,), generator=stream(seed))
        alpha, sigma = ScheduleConfig(kind="cosine", steps=100).build().levels(t)
        expected = plain.loss(batch, stream(seed)) * float(((alpha / sigma) ** 2).clamp(max=5.0))
        torch.testing.assert_close(weighed.loss(batch, stream(seed)), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_condition_dropout_replaces_its_share_of_labels(share: float) -> None:
    images = halves()
    recipe = make(images, condition_dropout=share)
    answer = Answer()
    recipe.model.denoiser.network = answer
    rows = torch.arange(64)
    for seed in range(40):
        recipe.loss(batch_of(images, rows, 0), stream(seed))
    told = torch.stack([labels for *_, labels in answer.asked if labels is not None])
    dropped = told == 2
    count = told.numel()
    assert abs(float(dropped.float().mean()) - share) <= 4 * (share * (1 - share) / count) ** 0.5
    assert bool((dropped | (told == images.labels)).all()), "the others keep their own"


def test_without_a_null_class_no_label_is_dropped() -> None:
    images = halves()
    recipe = make(images, {**UNET, "num_class_embeds": 2}, model={"null_class": False}, condition_dropout=0.5)
    answer = Answer()
    recipe.model.denoiser.network = answer
    recipe.loss(batch_of(images, torch.arange(64), 0), stream(0))
    (*_, labels) = answer.asked[0]
    assert torch.equal(labels, images.labels)


# -- the step --------------------------------------------------------------------------------------------------------


def test_the_average_is_exponential_with_a_ramp() -> None:
    """a <- d a + (1 - d) w with d = min(decay, (1 + k) / (10 + k)), after every step."""
    images = halves()
    recipe = make(images, average=0.4)
    expected = {name: p.detach().clone().double() for name, p in recipe.model.named_parameters()}
    for step in range(8):
        recipe.step(batch_of(images, torch.arange(16), step), stream(step))
        d = min(0.4, (1 + step) / (10 + step))
        for name, weight in recipe.model.named_parameters():
            expected[name] = d * expected[name] + (1 - d) * weight.detach().double()
    for name, average in recipe.average.named_parameters():
        torch.testing.assert_close(average.double(), expected[name], rtol=1e-4, atol=1e-6)
        assert not average.requires_grad
    assert recipe.trained().module is recipe.average


def test_the_average_copies_statistics() -> None:
    average, current = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    current(torch.randn(4, 2, 3, 3, generator=stream(0)) + 3)
    nn.init.constant_(current.weight, 3.0)
    update_average(average, current, decay=0.999, step=0)
    assert torch.equal(average.running_mean, current.running_mean)
    assert torch.equal(average.num_batches_tracked, current.num_batches_tracked)
    torch.testing.assert_close(average.weight.detach(), torch.full((2,), 0.1 * 1 + 0.9 * 3))


def test_gradients_are_clipped_and_reported_as_they_were() -> None:
    images = halves()
    recipe = make(images, clip_norm=1e-3)
    (value,) = train(recipe, images, 1)
    gradients = [p.grad.flatten() for p in recipe.model.parameters() if p.grad is not None]
    assert value["gradient_norm"] > 0.01
    assert float(torch.cat(gradients).norm()) == pytest.approx(1e-3, rel=1e-3)


def test_the_rate_follows_the_run() -> None:
    images = halves()
    recipe = make(images, steps=10, rate={"peak": 1e-3, "warmup": 2, "shape": "trapezoid", "decay": 0.5})
    rates = []
    for step in range(10):
        recipe.step(batch_of(images, torch.arange(4), step), stream(step))
        rates.append(recipe.optimizer.param_groups[0]["lr"])
    expected = [0.5e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 0.8e-3, 0.6e-3, 0.4e-3, 0.2e-3]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("network", [UNET, PLAIN], ids=["unet", "plain-unet"])
def test_a_run_cut_in_two_ends_as_one(network: dict[str, Any]) -> None:
    """Everything that a step depends on is in parts(): a new recipe that is given them goes on alike."""
    images = halves(size=network["sample_size"])
    batches = Batches(len(images), 8, seed=0)

    def go(recipe: DiffusionRecipe, first: int, last: int) -> None:
        for step in range(first, last):
            recipe.step(batch_of(images, batches[step], step), stream(step))

    whole, begun, resumed = (make(images, network, steps=6) for _ in range(3))
    go(whole, 0, 6)
    go(begun, 0, 3)
    for name, part in begun.parts().items():
        resumed.parts()[name].load_state_dict(part.state_dict())
    go(resumed, 3, 6)
    for part in ("model", "average"):
        one, other = whole.parts()[part].state_dict(), resumed.parts()[part].state_dict()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_training_mode_is_kept_through_a_preview() -> None:
    images = halves()
    recipe = make(images)
    preview = recipe.preview()
    assert preview.shape == (40, 1, 8, 8)
    assert float(preview.abs().max()) <= 1
    assert all(m.training for m in recipe.model.modules())
    assert not any(m.training for m in recipe.average.modules())


def test_a_preview_of_a_short_schedule() -> None:
    """Twenty steps are more than a schedule of ten has."""
    recipe = make(halves(), model={"schedule": {"steps": 10, "beta_end": 0.5}})
    assert recipe.preview().shape == (40, 1, 8, 8)


# -- what a card needs, and mistakes ---------------------------------------------------------------------------------


def test_what_was_trained_can_be_built_again() -> None:
    images = halves()
    recipe = make(images, options={"steps": 20, "guidance": 2.0})
    train(recipe, images, 3)
    trained = recipe.trained()
    assert trained.card["generator"] == "diffusion"
    assert trained.card["options"] == {"steps": 20, "guidance": 2.0}
    again = Diffusion(DiffusionConfig.model_validate(trained.card["config"])).eval().requires_grad_(False)
    again.load_state_dict(trained.module.state_dict(), strict=True)
    one, other = (model.generate([1], labels=0, steps=2) for model in (again, trained.module))
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (halves(size=16), r"makes images of \(1, 8, 8\), but halves holds \(1, 16, 16\)"),
        (Images(halves().pixels, halves().labels, (), "bare", "train"), "num_classes is 2, but bare has 0 classes"),
    ],
    ids=["size", "classes"],
)
def test_data_that_do_not_fit_are_refused(images: Images, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        make(images)


@pytest.mark.parametrize(
    "more",
    [
        {"condition_dropout": 1.5},
        {"min_snr": 0.0},
        {"clip_norm": -1.0},
        {"average": "0.9"},
        {"precision": "fp16"},
        {"rate": {"peak": 0.0}},
        {"learning_rate": 1e-3},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(more))):
        make(halves(), **more)
