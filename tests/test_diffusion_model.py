"""The diffusion generator: diffusers' pixels from diffusers' weights, guidance, steps, evaluations and mistakes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from pydantic import ValidationError
from torch import Tensor, nn

from genzoo.contrast import ClassifierFree
from genzoo.errors import GenzooError, OptionError
from genzoo.guidance import Guidance
from genzoo.noise import Noise
from genzoo.schedule import ScheduleConfig
from genzoo.scheduler import Denoise, Grid, Scheduler
from genzoo_plugins.diffusion.guidances import Unguided
from genzoo_plugins.diffusion.model import Diffusion, DiffusionConfig
from genzoo_plugins.diffusion.schedulers import DDIM, DDPM

UNET: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 2,
    "out_channels": 2,
    "block_out_channels": [16, 32],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 8,
}
PLAIN: dict[str, Any] = {
    "kind": "plain-unet",
    "sample_size": 16,
    "in_channels": 1,
    "out_channels": 1,
    "base": 4,
    "time_width": 16,
    "class_width": 8,
}


def build(network: dict[str, Any] = UNET, **settings: Any) -> Diffusion:
    """A model with random weights, the same ones every time."""
    settings.setdefault("num_classes", 3)
    rows = settings["num_classes"] + (1 if settings.get("null_class", True) and settings["num_classes"] else 0)
    full = {"kind": "unet", **network, "num_class_embeds": rows or None}
    config = DiffusionConfig.model_validate({"network": full, **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Diffusion(config).eval()
    return model


class Halving(nn.Module):
    """A network for tests that do not look at its answers."""

    def forward(self, x: Tensor, timestep: Tensor, class_labels: Tensor | None = None) -> Tensor:
        return x / 2


def count(model: Diffusion) -> list[int]:
    """A list that grows by the number of rows of every evaluation of the network, which becomes a simple one."""
    rows: list[int] = []
    model.denoiser.network = Halving()
    model.denoiser.network.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    return rows


@pytest.fixture(scope="module")
def shared() -> Diffusion:
    """A conditional model that no test changes."""
    return build()


# -- diffusers' pixels -----------------------------------------------------------------------------------------------


def theirs_of(model: Diffusion) -> UNet2DModel:
    """diffusers' network with the same weights, loaded strictly."""
    net = model.config.network.model_dump(exclude={"kind"})
    net = UNet2DModel(**{key: value for key, value in net.items() if value is not None})
    net.load_state_dict(model.denoiser.network.state_dict(), strict=True)
    return net.eval()


def streams(seeds: list[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def run_pipeline(pipeline: Any, seeds: list[int], **options: Any) -> Tensor:
    """Their images in our range."""
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(len(seeds), streams(seeds), output_type="np", **options).images
    return torch.from_numpy(images).permute(0, 3, 1, 2) * 2 - 1


def assert_same_pixels(ours: Tensor, theirs: Tensor, grey: float = 0.3) -> None:
    assert (theirs.abs() < 1).float().mean() > grey, "images that are black and white throughout would prove little"
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("prediction", "their_name", "eta"),
    [("eps", "epsilon", 0.0), ("eps", "epsilon", 0.7), ("v", "v_prediction", 0.0), ("x0", "sample", 0.7)],
)
def test_twenty_steps_of_their_ddim_pipeline(prediction: str, their_name: str, eta: float) -> None:
    """Their own pipeline with its default settings, fed with one torch.Generator per image."""
    model, seeds = build(num_classes=0, prediction=prediction), [3, 1, 2**32 - 1]
    if prediction == "eps":
        # An untrained network amplifies rounding from step to step (float32 is 5e-4 off float64, here and there), and
        # the larger its answers the more.
        with torch.no_grad():
            model.denoiser.network.conv_out.weight.mul_(0.1)
    pipeline = DDIMPipeline(theirs_of(model), DDIMScheduler(prediction_type=their_name))
    expected = run_pipeline(pipeline, seeds, num_inference_steps=20, eta=eta)
    # Their default keeps the network's own eps where x_0 is clipped: clip, in our words.
    ours = model.generate(seeds, steps=20, scheduler=f"ddim:eta={eta},clip=1.0")
    assert_same_pixels(ours, expected)
    # The other way, which is our default, is theirs by this switch. From small answers for eps nearly all of x_0 clips.
    expected = run_pipeline(pipeline, seeds, num_inference_steps=20, eta=eta, use_clipped_model_output=True)
    ours = model.generate(seeds, steps=20, scheduler=DDIM(eta=eta))
    assert_same_pixels(ours, expected, grey=0.01 if prediction == "eps" else 0.3)


def test_twenty_steps_of_their_ddpm_pipeline() -> None:
    model, seeds = build(num_classes=0, schedule={"kind": "cosine"}, prediction="v"), [3, 1]
    theirs = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    expected = run_pipeline(DDPMPipeline(theirs_of(model), theirs), seeds, num_inference_steps=20)
    assert_same_pixels(model.generate(seeds, steps=20, scheduler="ddpm"), expected)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_guided_walk_with_their_parts(clip: float | None) -> None:
    """Guidance in eps before their step clips x_0: clipping comes after guidance."""
    model, seeds, labels = build(clip=clip), [3, 1], torch.tensor([2, 0])
    net, theirs = theirs_of(model), DDIMScheduler(clip_sample=clip is not None)
    theirs.set_timesteps(20)
    x = torch.cat([torch.randn(1, 2, 8, 8, generator=stream) for stream in streams(seeds)])
    with torch.no_grad():
        for t in theirs.timesteps:
            free = net(x, t, class_labels=torch.tensor([3, 3])).sample
            eps = free + 2.5 * (net(x, t, class_labels=labels).sample - free)
            x = theirs.step(eps, t, x, use_clipped_model_output=True).prev_sample
    for guidance in ("cfg:scale=2.5,batched=false", 2.5):
        walk = list(model.sample(Noise(seeds), model.options(steps=20, guidance=guidance, labels=labels)))
        # Not clamped to the range of images, so that nothing hides outside it.
        torch.testing.assert_close(walk[-1].detach(), x, rtol=2e-4, atol=2e-4)


# -- guidance --------------------------------------------------------------------------------------------------------


def test_scale_1_and_scale_0_are_the_plain_models(shared: Diffusion) -> None:
    seeds = [0, 1]
    plain = shared.generate(seeds, labels=[2, 1], steps=4, guidance="none")
    assert torch.equal(shared.generate(seeds, labels=[2, 1], steps=4, guidance=1), plain)
    assert torch.equal(shared.generate(seeds, labels=[2, 1], steps=4), plain), "the default"
    free = shared.generate(seeds, labels=[2, 1], steps=4, guidance=0.0)
    assert torch.equal(shared.generate(seeds, labels=[0, 0], steps=4, guidance=0.0), free), "labels do not matter"
    assert not torch.equal(free, plain)


def test_two_evaluations_are_one_batched() -> None:
    model = build().double()
    one = model.generate([0, 1], labels=1, steps=4, guidance=3.0)
    two = model.generate([0, 1], labels=1, steps=4, guidance=ClassifierFree(scale=3.0, batched=False))
    torch.testing.assert_close(one, two, rtol=0, atol=1e-6)


def test_clipping_comes_after_guidance() -> None:
    """Of branches -3 (free) and 1 (wanted), scale 0.5 makes -1; had the free one been clipped to -2 first, -0.5."""

    class Two(nn.Module):
        def forward(self, x: Tensor, timestep: Tensor, class_labels: Tensor) -> Tensor:
            return torch.where(class_labels == 3, -3.0, 1.0).view(-1, 1, 1, 1).expand_as(x)

    model = build(prediction="x0", clip=2.0)
    model.denoiser.network = Two()
    x = torch.zeros(1, 2, 8, 8)
    for scale, expected in ((0.5, -1.0), (3.0, 2.0), (-1.0, -2.0)):
        denoise = model.guided(model.options(labels=[0], guidance=scale))
        assert torch.equal(denoise(x, 500.0), torch.full_like(x, expected))


def test_the_denoiser_is_not_written_to_by_clipping() -> None:
    """A network may answer with its own input."""

    class Same(nn.Module):
        def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
            return x

    model = build(num_classes=0, prediction="x0", clip=0.5)
    model.denoiser.network = Same()
    x = torch.full((1, 2, 8, 8), 3.0)
    assert float(model.guided(model.options())(x, 500.0).max()) == 0.5
    assert float(x.min()) == 3.0


@pytest.mark.parametrize("guidance", [0.0, 2.0, "cfg", "cfg:scale=0.5", ClassifierFree(scale=3.0)], ids=str)
def test_unconditional_models_refuse_guidance(guidance: Any) -> None:
    with pytest.raises(OptionError, match=r"unconditional.*leave guidance at 1"):
        build(num_classes=0).generate(steps=1, guidance=guidance)


@pytest.mark.parametrize("guidance", [1, 1.0, "none", "cfg:scale=1", Unguided()], ids=str)
def test_unconditional_models_allow_what_guides_nothing(guidance: Any) -> None:
    model = build(num_classes=0)
    assert torch.equal(model.generate(steps=2, guidance=guidance), model.generate(steps=2))


def test_models_without_a_null_class_refuse_guidance() -> None:
    model = build(null_class=False)
    assert model.generate(labels=2, steps=1).shape == (1, 2, 8, 8)
    for guidance in (0.0, 2.0):
        with pytest.raises(OptionError, match="null class"):
            model.generate(labels=2, steps=1, guidance=guidance)


@pytest.mark.parametrize("scale", [1e-5, -3, 7.25, 100])
def test_scales_reach_the_guidance_unchanged(shared: Diffusion, scale: float) -> None:
    guidance = shared.guidance(shared.options(guidance=scale))
    assert guidance == ClassifierFree(scale=float(scale))


# -- evaluations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", ["none", 0.0, 1.0, 2.0, "cfg:scale=2,batched=false"], ids=str)
@pytest.mark.parametrize(
    ("scheduler", "steps"),
    [
        ("ddim", 5),
        ("ddpm", 5),
        ("ddim", 1),
        ("ddim:spacing=trailing", 7),
        ("ddim:spacing=quadratic", 15),
        ("ddim:offset=1", 20),
        ("ddim:end=1", 6),
        ("ddpm", 20),
    ],
)
def test_nfe_is_what_is_counted(scheduler: str, steps: int, guidance: Any) -> None:
    model = build(schedule={"steps": 20, "beta_end": 0.3})
    rows = count(model)
    options = {"scheduler": scheduler, "steps": steps, "guidance": guidance}
    model.generate(range(3), batch=2, labels=1, **options)
    assert sum(rows) / 3 == model.nfe(model.options(**options))


def test_nfe_of_a_second_order_method_counts_every_evaluation() -> None:
    """A scheduler of a third party that asks twice a step, but once in the last."""

    class Heun(Scheduler):
        def step(self, x: Tensor, x0: Tensor, here: Any, there: Any, noise: Noise) -> Tensor:
            return DDIM().step(x, x0, here, there, noise)

        def walk(self, denoise: Denoise, x: Tensor, grid: Grid, noise: Noise) -> Iterator[Tensor]:
            for here, there in grid.pairs():
                x0 = denoise(x, here.t)
                if there.t:
                    x0 = (x0 + denoise(self.step(x, x0, here, there, noise), there.t)) / 2
                x = self.step(x, x0, here, there, noise)
                yield x

        def nfe(self, steps: int) -> int:
            return 2 * steps - 1

    model = build(schedule={"steps": 20, "beta_end": 0.3})
    rows, options = count(model), {"scheduler": Heun(spacing="quadratic"), "steps": 15, "guidance": 2.0}
    model.generate([0], labels=0, **options)
    assert sum(rows) == model.nfe(model.options(**options))


# -- steps, schedulers and their mistakes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": -1}, "steps"),
        ({"steps": 1001}, "steps=1001.*give 1 to 1000"),
        ({"steps": 10**9}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"scheduler": "dddim"}, "did you mean 'ddim'"),
        ({"scheduler": "DDPM"}, "known:.*ddim, ddpm"),
        ({"scheduler": "ddim:etaa=0.5"}, "etaa: unknown key.*its options:.*eta"),
        ({"scheduler": "ddim:eta=2"}, "eta"),
        ({"scheduler": "ddim:eta"}, "key=value"),
        ({"scheduler": "ddim:spacing=trailin"}, "spacing.*trailing"),
        ({"scheduler": 5}, "scheduler"),
        ({"guidance": "cfgg"}, "did you mean 'cfg'"),
        ({"guidance": "cfg:scael=2"}, "scael: unknown key.*its options: scale"),
        ({"guidance": float("nan")}, "guidance"),
        ({"guidance": 1e6}, "scale"),
        ({"guidnace": 2}, "did you mean 'guidance'"),
        ({"label": 2}, "did you mean 'labels'"),
        ({"labels": 3}, "0 to 2"),
    ],
    ids=str,
)
def test_mistakes_get_one_line_and_no_evaluation(options: dict[str, Any], message: str) -> None:
    model = build()
    rows = count(model)
    with pytest.raises(GenzooError, match=message) as caught:
        model.generate([0], **options)
    assert "\n" not in str(caught.value)
    assert rows == []


def test_schedulers_by_name_and_as_objects(shared: Diffusion) -> None:
    for name, scheduler in (
        ("ddim", DDIM()),
        ("ddim:eta=0.5,spacing=trailing", DDIM(eta=0.5, spacing="trailing")),
        ("ddpm:variance=large", DDPM(variance="large")),
    ):
        assert shared.scheduler(shared.options(scheduler=name)) == scheduler
        one, other = (shared.generate(steps=3, labels=0, scheduler=given) for given in (name, scheduler))
        assert torch.equal(one, other)


def test_a_guidance_of_a_third_party_needs_no_registration(shared: Diffusion) -> None:
    class Late(Guidance):
        """Guidance in the noisier half only."""

        def __call__(self, denoiser: Any, condition: Any, null: Any) -> Denoise:
            strong = ClassifierFree(scale=4.0)(denoiser, condition, null)
            return lambda x, t: strong(x, t) if t > 500 else denoiser(x, t, condition)

        @property
        def evaluations(self) -> int:
            return 2

    assert not torch.equal(
        shared.generate(labels=0, steps=4, guidance=Late()), shared.generate(labels=0, steps=4, guidance=4.0)
    )


@pytest.mark.parametrize("steps", [1, 2, 50])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace", "quadratic"])
def test_a_trajectory_has_an_image_for_every_step(spacing: str, steps: int) -> None:
    model = build(schedule={"steps": 50, "beta_end": 0.2})
    model.denoiser.network = Halving()
    (walk,) = model.trajectories([0, 1], labels=0, steps=steps, scheduler=f"ddim:spacing={spacing}")
    images = list(walk)
    assert len(images) == len(DDIM(spacing=spacing).grid(model.denoiser.schedule, steps).levels) - 1
    assert all(image.shape == (2, 2, 8, 8) and image.dtype == torch.float32 for image in images)


def test_pure_noise_at_the_start_needs_v_or_x0() -> None:
    endless = {"schedule": {"zero_terminal_snr": True}}
    for prediction in ("v", "x0"):
        images = build(prediction=prediction, **endless).generate(labels=0, steps=5, scheduler="ddim:spacing=trailing")
        assert bool(images.isfinite().all())
    with pytest.raises(OptionError, match="predicts v or x0, or a scheduler that starts below it") as caught:
        build(**endless).generate(labels=0, steps=5, scheduler="ddim:spacing=trailing")
    assert "\n" not in str(caught.value)
    assert bool(build(**endless).generate(labels=0, steps=5).isfinite().all()), "as the message says"


# -- a picture depends on its seed alone -----------------------------------------------------------------------------


@pytest.mark.parametrize("network", [UNET, PLAIN], ids=["unet", "plain-unet"])
@pytest.mark.parametrize("scheduler", ["ddim", "ddpm"])
def test_neighbours_do_not_matter(network: dict[str, Any], scheduler: str) -> None:
    model, seeds = build(network), [5, 1, 9, 5, 2]
    options: dict[str, Any] = {"steps": 4, "scheduler": scheduler, "guidance": 2.0}
    together = model.generate(seeds, batch=4, exact=True, **options)
    for i, seed in enumerate(seeds):
        assert torch.equal(model.generate(seed, batch=4, exact=True, **options)[0], together[i])
        torch.testing.assert_close(model.generate(seed, **options)[0], together[i], rtol=0, atol=1e-4)
    latents = Noise(seeds).normal(*model.shape)
    assert torch.equal(model.generate(seeds, noise=latents, batch=4, exact=True, **options), together)


def test_training_mode_makes_no_difference() -> None:
    """Batch norm and dropout both: the plain network has the one and a U-Net may have the other."""
    for network in (PLAIN, {**UNET, "dropout": 0.5}):
        model = build(network)
        expected = model.generate(range(3), labels=0, steps=3)
        model.train()
        assert torch.equal(model.generate(range(3), labels=0, steps=3), expected)
        assert all(m.training for m in model.modules())


def test_seeds_start_alike_whatever_the_patch() -> None:
    plain, folded = build(num_classes=0), build({**UNET, "in_channels": 8, "out_channels": 8}, num_classes=0, patch=2)
    assert plain.shape == (2, 8, 8)
    assert folded.shape == (2, 16, 16)
    images = torch.arange(2 * 2 * 16 * 16.0).view(2, 2, 16, 16)
    assert folded.fold(images).shape == (2, 8, 8, 8)
    assert torch.equal(folded.unfold(folded.fold(images)), images)
    assert torch.equal(folded.fold(images)[:, 0], images[:, 0, ::2, ::2]), "pixel-unshuffle"
    told: list[Tensor] = []
    folded.denoiser.network.register_forward_pre_hook(lambda _, given: told.append(given[0]))
    assert folded.generate([7], steps=1).shape == (1, 2, 16, 16)
    assert torch.equal(folded.unfold(told[0]), Noise([7]).normal(2, 16, 16))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_make_about_the_same_picture(dtype: torch.dtype) -> None:
    expected = build(prediction="v").generate(range(2), labels=0, steps=4)
    images = build(prediction="v").to(dtype).generate(range(2), labels=0, steps=4)
    assert images.dtype == torch.float32
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-5 if dtype == torch.float64 else 0.1)


# -- configs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network": {"kind": "unet", **UNET}, "num_classes": 3}, "num_class_embeds"),
        ({"network": {"kind": "unet", **UNET, "num_class_embeds": 3}, "num_classes": 3}, "needs 4"),
        ({"network": {"kind": "unet", **UNET, "num_class_embeds": 4}}, "needs None"),
        ({"network": {"kind": "unet", **UNET}, "patch": 2}, "multiple of patch"),
        ({"network": {"kind": "unet", **UNET, "out_channels": 3}}, "must be equal"),
        ({"network": {"kind": "unet", **UNET, "sample_size": None}}, "sample_size"),
        ({"network": {"kind": "vit", **UNET}}, "kind"),
        ({"network": UNET}, "kind"),
        ({"network": {"kind": "unet", **UNET}, "prediction": "epsilon"}, "prediction"),
        ({"network": {"kind": "unet", **UNET}, "clip": 0.0}, "clip"),
        ({"network": {"kind": "unet", **UNET}, "schedule": {"kind": "sigmoid"}}, "kind"),
    ],
)
def test_configs_that_do_not_agree_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DiffusionConfig.model_validate(settings)


def test_a_config_survives_a_card() -> None:
    config = build(prediction="v", schedule={"kind": "cosine"}, clip=None).config
    assert DiffusionConfig.model_validate_json(config.model_dump_json(), strict=True) == config
    assert config.schedule == ScheduleConfig(kind="cosine")
