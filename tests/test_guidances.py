"""The guidances that grew out of classifier-free guidance: each one's defining identity, and diffusers' formulas."""

from __future__ import annotations

import copy
import gc
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance
from diffusers.guiders.classifier_free_zero_star_guidance import cfg_zero_star_scale
from diffusers.guiders.guider_utils import rescale_noise_cfg
from diffusers.schedulers import DDIMScheduler
from oracle import PAIR, Mixture, MixtureNetwork, oracle
from torch import Tensor, nn

import genzoo
from genzoo.contrast import ClassifierFree
from genzoo.denoiser import Denoiser, to_x0
from genzoo.errors import OptionError, UnknownName
from genzoo.guidance import Guidance
from genzoo.metric import Extractor, Features
from genzoo.noise import Noise
from genzoo.registry import Registrar, Zoo, default_zoo
from genzoo.schedule import ScheduleConfig
from genzoo.scheduler import Grid, Level
from genzoo_plugins.diffusion.guidances import Unguided
from genzoo_plugins.diffusion.model import Diffusion, DiffusionConfig
from genzoo_plugins.diffusion.schedulers import DDIM
from genzoo_plugins.guidance import filters
from genzoo_plugins.guidance.chain import Chain
from genzoo_plugins.guidance.contrast import Negative, PlusPlus, Projected, Rescaled, ZeroStar
from genzoo_plugins.guidance.filters import Auto, Classifier, Interval, Threshold, log_likelihood_gradient
from genzoo_plugins.solvers.dpm_solver import DPMpp2M
from genzoo_plugins.solvers.euler import Euler, Heun

SCHEDULE = ScheduleConfig().build()
WANTED = {"class_labels": torch.tensor([0, 1, 1])}
NULL = {"class_labels": torch.tensor([2, 2, 2])}
TIMES = [30.0, 400.0, 900.0]
NAMES = ["rescaled", "apg", "cfg-zero-star", "cfgpp", "negative", "interval", "threshold", "autoguidance", "classifier",
         "chain"]  # fmt: skip


def draw(seed: int = 0) -> Tensor:
    return torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def model(prediction: Any = "eps") -> Denoiser:
    return oracle(PAIR, SCHEDULE, prediction)


def calls(denoiser: Denoiser) -> list[int]:
    assert isinstance(denoiser.network, MixtureNetwork)
    return denoiser.network.calls


def grid(steps: int = 8) -> Grid:
    return DDIM(spacing="trailing").grid(SCHEDULE, steps)


def same(guidance: Guidance, other: Guidance, prediction: Any = "eps") -> None:
    """Both give one x_0, at every time and one time after the other."""
    denoiser = model(prediction)
    ours, theirs = (kind.over(grid())(denoiser, WANTED, NULL) for kind in (guidance, other))
    for t in TIMES:
        torch.testing.assert_close(ours(draw(), t), theirs(draw(), t), rtol=0, atol=1e-9)


def test_all_are_registered() -> None:
    assert set(NAMES) <= set(default_zoo().names("guidance"))


# -- what a setting turns them into ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [-1.0, 0.5, 3.0])
@pytest.mark.parametrize("prediction", ["eps", "v", "x0", "flow", "edm"])
def test_settings_that_are_classifier_free_guidance(scale: float, prediction: Any) -> None:
    for guidance in (
        Rescaled(scale=scale, rescale=0.0),
        Projected(scale=scale, eta=1.0),
        Interval(scale=scale),
        Projected(scale=scale, eta=1.0, norm=1e9),
        Chain(parts=(ClassifierFree(scale=scale), Interval())),
    ):
        same(guidance, ClassifierFree(scale=scale), prediction)


@pytest.mark.parametrize(
    "guidance",
    [
        Rescaled(scale=1.0),
        Projected(scale=1.0, momentum=-0.5, norm=0.1),
        ZeroStar(scale=1.0),
        Negative(scale=1.0, labels=(0,)),
        Interval(scale=1.0),
        Interval(scale=4.0, low=1e6),
        Auto(model="no.such", scale=1.0),
        Classifier(extractor="none", scale=0.0),
        Chain(parts=(Unguided(), Auto(model="no.such", scale=1.0))),
    ],
    ids=repr,
)
def test_settings_that_are_the_plain_conditional_model(guidance: Guidance) -> None:
    same(guidance, Unguided())
    denoiser = model()
    guidance.over(grid())(denoiser, WANTED, NULL)(draw(), 500.0)
    assert calls(denoiser) == [3]
    assert guidance.over(grid()).evaluations_at(Level(500.0, *SCHEDULE.level(500.0))) == 1


@pytest.mark.parametrize(
    "guidance", [Rescaled(), Projected(), ZeroStar(), PlusPlus(), Negative(labels=(0, 1))], ids=repr
)
@pytest.mark.parametrize("batched", [True, False])
def test_evaluations_are_counted(guidance: Guidance, batched: bool) -> None:
    guidance = guidance.model_copy(update={"batched": batched}).over(grid())
    denoiser = model()
    guidance(denoiser, WANTED, NULL)(draw(), 500.0)
    assert sum(calls(denoiser)) == 3 * guidance.evaluations == 3 * guidance.evaluations_at(grid().levels[4])
    assert len(calls(denoiser)) == (1 if batched else guidance.evaluations)


@pytest.mark.parametrize(
    "guidance", [Rescaled(), Projected(), ZeroStar(), PlusPlus(), Negative(labels=(0, 1))], ids=repr
)
def test_branches_together_are_branches_apart(guidance: Guidance) -> None:
    same(guidance, guidance.model_copy(update={"batched": False}))


@pytest.mark.parametrize("guidance", [Rescaled(), Projected(norm=0.3), ZeroStar(), PlusPlus(), Threshold()], ids=repr)
def test_a_sample_does_not_depend_on_its_neighbours(guidance: Guidance) -> None:
    together = guidance.over(grid())(model(), WANTED, NULL)(draw(), 500.0)
    for i in range(3):
        one = [{key: value[i : i + 1] for key, value in given.items()} for given in (WANTED, NULL)]
        alone = guidance.over(grid())(model(), *one)(draw()[i : i + 1], 500.0)
        torch.testing.assert_close(alone, together[i : i + 1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("guidance", [Rescaled(), Projected(), ZeroStar(), PlusPlus(), Interval(scale=2.0)], ids=repr)
def test_models_that_cannot_be_guided_say_so(guidance: Guidance) -> None:
    for condition, null, words in (({}, None, "unconditional"), (WANTED, None, "null class")):
        with pytest.raises(OptionError, match=words):
            guidance.over(grid())(model(), condition, null)


# -- formulas --------------------------------------------------------------------------------------------------------


def branches(t: float, prediction: Any = "eps") -> tuple[Tensor, Tensor]:
    """(unconditional, conditional) x_0."""
    denoiser = model(prediction)
    return denoiser(draw(), t, NULL), denoiser(draw(), t, WANTED)


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("rescale", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("prediction", ["eps", "v", "x0", "flow", "edm"])
def test_rescaling_is_diffusers(t: float, rescale: float, prediction: Any) -> None:
    """In what the network predicts."""
    denoiser, (alpha, sigma) = model(prediction), SCHEDULE.level(t)
    free, wanted = (denoiser.predict(draw(), t, given) for given in (NULL, WANTED))
    output = rescale_noise_cfg(free + 3 * (wanted - free), wanted, rescale)
    x0 = to_x0(output, draw(), alpha, sigma, prediction)
    ours = Rescaled(scale=3.0, rescale=rescale)(denoiser, WANTED, NULL)(draw(), t)
    torch.testing.assert_close(ours, x0, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("norm", [None, 0.5])
@pytest.mark.parametrize("momentum", [0.0, -0.5])
def test_projected_guidance_is_diffusers(eta: float, norm: float | None, momentum: float) -> None:
    """Over several evaluations, for the momentum; in the paper's formulation, which starts from the conditional x_0."""
    ours = Projected(scale=3.0, eta=eta, norm=norm, momentum=momentum)(model(), WANTED, NULL)
    buffer = MomentumBuffer(momentum)
    for t in TIMES[::-1]:
        free, wanted = branches(t)
        theirs = normalized_guidance(wanted, free, 2.0, buffer, eta, norm or 0.0, use_original_formulation=True)
        torch.testing.assert_close(ours(draw(), t), theirs, rtol=0, atol=1e-9)


def test_momentum_ends_with_the_walk() -> None:
    guidance = Projected(momentum=-0.7)
    first, second = (guidance(model(), WANTED, NULL) for _ in range(2))
    assert torch.equal(first(draw(), 500.0), second(draw(), 500.0))
    assert not torch.equal(first(draw(), 500.0), Projected()(model(), WANTED, NULL)(draw(), 500.0))


@pytest.mark.parametrize("t", TIMES)
def test_zero_star_is_diffusers(t: float) -> None:
    """In the velocity."""
    denoiser, (alpha, sigma) = model("flow"), SCHEDULE.level(t)
    free, wanted = (denoiser.predict(draw(), t, given) for given in (NULL, WANTED))
    fit = cfg_zero_star_scale(wanted.flatten(1), free.flatten(1)).view(-1, 1, 1, 1)
    velocity = free * fit + 3 * (wanted - free * fit)
    x0 = (draw() - sigma * velocity) / (alpha + sigma)
    ours = ZeroStar(scale=3.0, zero_steps=0)(denoiser, WANTED, NULL)(draw(), t)
    torch.testing.assert_close(ours, x0, rtol=1e-5, atol=1e-5)


def test_zero_star_is_classifier_free_guidance_where_the_branches_agree_on_length() -> None:
    """s = 1 for equal branches, so nothing is left to guide."""
    denoiser = model()
    ours = ZeroStar(scale=3.0, zero_steps=0)(denoiser, WANTED, WANTED)(draw(), 500.0)
    torch.testing.assert_close(ours, denoiser(draw(), 500.0, WANTED), rtol=0, atol=1e-9)


def test_zero_star_stands_still_at_first() -> None:
    walked, denoiser, x = grid(8), model(), draw()
    guidance = ZeroStar(scale=3.0, zero_steps=2).over(walked)
    denoise = guidance(denoiser, WANTED, NULL)
    steps = list(Euler().walk(denoise, x, walked, Noise(range(3))))
    assert len(calls(denoiser)) == 6
    assert [guidance.evaluations_at(level) for level in walked.levels[:-1]] == [0, 0, 2, 2, 2, 2, 2, 2]
    start, third = walked.levels[0], walked.levels[2]
    # No velocity: x / (alpha + sigma) stays.
    torch.testing.assert_close(steps[1] / (third.alpha + third.sigma), x / (start.alpha + start.sigma))
    with pytest.raises(OptionError, match="over"):
        ZeroStar()(denoiser, WANTED, NULL)


@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("scheduler", [DDIM(), Euler()], ids=repr)
def test_plus_plus_is_the_paper(scale: float, scheduler: Any) -> None:
    """x' = alpha' x_0 + sigma' eps_null, as it is printed."""
    walked, x, denoiser = grid(8), draw(), model()
    guidance = PlusPlus(scale=scale, clip=0.9).over(walked)
    ours = scheduler.walk(guidance(denoiser, WANTED, NULL), x, walked, Noise(range(3)))
    for (here, there), after in zip(walked.pairs(), ours, strict=True):
        free, wanted = denoiser(x, here.t, NULL), denoiser(x, here.t, WANTED)
        eps = (x - here.alpha * free) / here.sigma
        x = there.alpha * (free + scale * (wanted - free)).clamp(-0.9, 0.9) + there.sigma * eps
        torch.testing.assert_close(after, x, rtol=0, atol=1e-9)


def test_plus_plus_0_is_the_free_model_and_any_solver_can_walk_it() -> None:
    walked, denoiser = grid(8), model()
    free = PlusPlus(scale=0.0, clip=None).over(walked)(denoiser, WANTED, NULL)
    for t in TIMES:
        torch.testing.assert_close(free(draw(), t), denoiser(draw(), t, NULL), rtol=0, atol=1e-9)
    for scheduler in (Heun(), DPMpp2M()):
        *_, last = scheduler.walk(PlusPlus().over(walked)(denoiser, WANTED, NULL), draw(), walked, Noise(range(3)))
        assert float(last.abs().max()) < 5
    with pytest.raises(OptionError, match="over"):
        PlusPlus()(denoiser, WANTED, NULL)


def test_plus_plus_between_the_levels_of_a_grid_has_the_strength_of_its_step() -> None:
    """Halfway through a step, and above its level, where churn looks: that of the whole step, not of what is left."""
    walked, denoiser = grid(8), model()
    here, there = walked.levels[3], walked.levels[4]
    guided = PlusPlus(clip=None).over(walked)(denoiser, WANTED, NULL)
    risen = walked.at_log_snr(here.log_snr - 0.01)
    for level in (here, walked.at_log_snr((here.log_snr + there.log_snr) / 2), risen):
        free, wanted = denoiser(draw(), level.t, NULL), denoiser(draw(), level.t, WANTED)
        strength = 0.6 / (1 - there.sigma / there.alpha * here.alpha / here.sigma)
        expected = free + strength * (wanted - free)
        torch.testing.assert_close(guided(draw(), level.t), expected, rtol=1e-6, atol=1e-6)


def test_plus_plus_is_the_paper_where_steps_end_beside_the_next_time() -> None:
    """ddim's even strides: what counts is where a step ends, not which time comes next."""
    scheduler, x, denoiser = DDIM(spacing="linspace", stride="even"), draw(), model()
    walked = scheduler.grid(SCHEDULE, 7)
    (here, there), *_ = walked.pairs()
    assert there.t != walked.times[1]
    denoise = PlusPlus(scale=0.3, clip=None).over(walked)(denoiser, WANTED, NULL)
    free, wanted = denoiser(x, here.t, NULL), denoiser(x, here.t, WANTED)
    eps = (x - here.alpha * free) / here.sigma
    after = next(iter(scheduler.walk(denoise, x, walked, Noise(range(3)))))
    torch.testing.assert_close(after, there.alpha * (free + 0.3 * (wanted - free)) + there.sigma * eps)


def test_plus_plus_in_a_step_in_place() -> None:
    """ddim with end=1 and a grid that begins at the first noisy level: nothing to divide by."""
    scheduler, denoiser = DDIM(end=1), model()
    walked = scheduler.grid(SCHEDULE, 5)
    assert walked.times[-1] == walked.times[-2] == 1
    *_, before, last = scheduler.walk(PlusPlus().over(walked)(denoiser, WANTED, NULL), draw(), walked, Noise(range(3)))
    torch.testing.assert_close(last, before)


@pytest.mark.parametrize("guidance", [ZeroStar(zero_steps=0), Projected(norm=5.0), Rescaled()], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_images_in_low_precision(guidance: Guidance, dtype: torch.dtype) -> None:
    """76,800 numbers, whose squares add up to more than float16 holds."""

    class Network(nn.Module):
        def forward(self, x: Tensor, timestep: Tensor, class_labels: Tensor) -> Tensor:
            return x.roll(1, -1) * (0.3 + 0.1 * class_labels.to(x).reshape(-1, 1, 1, 1))

    x = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0)) * 2
    told = {"class_labels": torch.tensor([1, 2])}, {"class_labels": torch.tensor([0, 0])}
    denoise = guidance.over(grid())(Denoiser(Network(), SCHEDULE, "x0"), *told)
    low = denoise(x.to(dtype), 500.0)
    assert low.dtype == dtype
    torch.testing.assert_close(low.float(), denoise(x, 500.0), rtol=0.05, atol=0.1)


#: One of each, where the walk's levels, its past or both branches matter.
COMPOSED = [
    "cfg:scale=2", "rescaled:scale=2", "apg:scale=2,momentum=-0.5", "cfg-zero-star:scale=2", "cfgpp",
    "negative:labels=0,scale=1.5", "interval:scale=2,low=0.5,high=3", "threshold",
    "chain:parts=apg:scale=2+interval:high=5+threshold",
]  # fmt: skip


@pytest.mark.parametrize("guidance", COMPOSED)
@pytest.mark.parametrize("scheduler", default_zoo().names("scheduler"))
def test_any_guidance_goes_with_any_scheduler(guidance: str, scheduler: str) -> None:
    """Clamped as a model clamps, the walk ends among the data, and the evaluations are those that are told."""
    method, denoiser = default_zoo().make("scheduler", scheduler), model("v")
    walked = method.grid(SCHEDULE, 6)
    chosen: Guidance = default_zoo().make("guidance", guidance).over(walked)
    denoise = chosen(denoiser, WANTED, NULL)
    noise = Noise(range(3), dtype=torch.float64)
    *_, out = method.walk(
        lambda x, t: denoise(x, t) if chosen.clips else denoise(x, t).clamp(-2, 2), noise.start(2, 4, 4), walked, noise
    )
    assert float(out.abs().max()) < 6
    told = sum(chosen.evaluations_at(Level(t, *SCHEDULE.level(t))) for t in method.evaluated(walked))
    assert sum(calls(denoiser)) == 3 * told


def test_negative_labels_take_the_place_of_none() -> None:
    same(Negative(scale=2.5, labels=(1,)), Swapped(scale=2.5))
    denoiser, t = model(), 400.0
    away = torch.stack([denoiser(draw(), t, {"class_labels": torch.full((3,), label)}) for label in (0, 1)]).mean(0)
    expected = away + 2.5 * (denoiser(draw(), t, WANTED) - away)
    ours = Negative(scale=2.5, labels=(0, 1))(denoiser, WANTED, NULL)(draw(), t)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-9)
    assert default_zoo().make("guidance", "negative:labels=0/1,scale=2.5") == Negative(labels=(0, 1), scale=2.5)
    assert default_zoo().make("guidance", "negative:labels=1") == Negative(labels=(1,))
    with pytest.raises(OptionError, match="knows 0 to 1"):
        Negative(labels=(2,))(denoiser, WANTED, NULL)


class Swapped(ClassifierFree):
    """Classifier-free guidance whose null is class 1."""

    def __call__(self, denoiser: Denoiser, condition: Any, null: Any) -> Any:
        return super().__call__(denoiser, condition, {"class_labels": torch.ones(3, dtype=torch.long)})


def test_interval_guides_inside_and_nowhere_else() -> None:
    guidance, denoiser = Interval(scale=3.0, low=0.5, high=4.0), model()
    ours = guidance(denoiser, WANTED, NULL)
    for t in range(10, 1000, 70):
        level = Level(float(t), *SCHEDULE.level(t))
        inside = 0.5 < level.sigma / level.alpha <= 4
        expected = (ClassifierFree(scale=3.0) if inside else Unguided())(denoiser, WANTED, NULL)(draw(), level.t)
        calls(denoiser).clear()
        torch.testing.assert_close(ours(draw(), level.t), expected, rtol=0, atol=1e-12)
        assert sum(calls(denoiser)) == 3 * guidance.evaluations_at(level) == (6 if inside else 3)
    assert Interval().inside(Level(1000.0, 0.0, 1.0))
    assert not Interval(high=1e6).inside(Level(1000.0, 0.0, 1.0))


@pytest.mark.parametrize("percentile", [0.5, 0.9, 0.995, 1.0])
def test_threshold_is_diffusers(percentile: float) -> None:
    theirs = DDIMScheduler(thresholding=True, dynamic_thresholding_ratio=percentile, sample_max_value=1e9)
    fixed = draw() * torch.tensor([0.1, 1.0, 5.0]).reshape(-1, 1, 1, 1)
    denoise = Threshold(percentile=percentile).after(lambda x, t: fixed, model(), WANTED, NULL)
    torch.testing.assert_close(denoise(draw(), 5.0), theirs._threshold_sample(fixed))
    assert float(denoise(draw(), 5.0).abs().max()) <= 1


def test_threshold_is_clipping_where_one_is_the_most() -> None:
    fixed = draw() * 3
    denoise = Threshold(most=1.0).after(lambda x, t: fixed, model(), WANTED, NULL)
    torch.testing.assert_close(denoise(draw(), 5.0), fixed.clamp(-1, 1))


# -- a weaker card, a classifier -------------------------------------------------------------------------------------


class Weak(nn.Module):
    """Stands for a loaded model."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser


@pytest.fixture
def weak(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is loaded, in a list that the test fills."""
    loaded: list[Any] = []

    class Fake:
        def load(self, name: str, *, local_files_only: bool, **_: Any) -> Any:
            assert name == "weak.card"
            assert local_files_only  # a card's own options may name it, and loading one model never pulls another
            return loaded[0]

    monkeypatch.setattr(filters, "default_zoo", Fake)
    monkeypatch.setattr(filters, "find_card", lambda zoo, name, **_: (name, None))
    return loaded


def test_autoguidance_with_itself_is_the_model(weak: list[Any]) -> None:
    weak.append(Weak(model()))
    same(Auto(model="weak.card", scale=3.0), Unguided())


def test_autoguidance_leads_away_from_the_weaker_model(weak: list[Any]) -> None:
    class Blurred(nn.Module):
        def forward(self, x: Tensor, timestep: Tensor, class_labels: Tensor) -> Tensor:
            return x * 0.3 + class_labels.reshape(-1, 1, 1, 1)

    weak.append(Weak(Denoiser(Blurred(), SCHEDULE, "x0")))
    denoiser, guidance = model(), Auto(model="weak.card", scale=3.0)
    expected = 3 * denoiser(draw(), 400.0, WANTED) - 2 * weak[0].denoiser(draw(), 400.0, WANTED)
    torch.testing.assert_close(guidance(denoiser, WANTED, None)(draw(), 400.0), expected, rtol=0, atol=1e-9)
    assert guidance.evaluations == 2
    chain = Chain(parts=(ClassifierFree(scale=2.0), guidance))
    assert chain.evaluations == chain.evaluations_at(grid().levels[0]) == 3
    both = 3 * ClassifierFree(scale=2.0)(denoiser, WANTED, NULL)(draw(), 400.0)
    both = both - 2 * weak[0].denoiser(draw(), 400.0, WANTED)
    torch.testing.assert_close(chain(denoiser, WANTED, NULL)(draw(), 400.0), both, rtol=0, atol=1e-9)


def test_autoguidance_by_a_model_of_other_classes_is_refused(weak: list[Any]) -> None:
    class Classless(nn.Module):
        config = SimpleNamespace(num_class_embeds=None)

    class Classed(nn.Module):
        config = SimpleNamespace(num_class_embeds=3)

    weak.append(Weak(Denoiser(Classless(), SCHEDULE, "x0")))
    with pytest.raises(OptionError, match="not trained on the same classes"):
        Auto(model="weak.card")(Denoiser(Classed(), SCHEDULE, "x0"), WANTED, None)


def test_a_weaker_model_is_loaded_anew_once_it_was_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And once for all batches until then."""
    zoo, built, loaded = Zoo.discover(), diffusion(), []
    load = zoo.load
    monkeypatch.setattr(zoo, "load", lambda name, **given: (loaded.append(name), load(name, **given))[1])
    written = {**tiny.card("ddpm.tiny"), "generator": "diffusion", "config": built.config.model_dump(mode="json")}
    built.card, built.zoo = genzoo.Card.model_validate({**written, "shape": built.shape}), zoo
    built.save_pretrained(tmp_path)
    call: dict[str, Any] = {"batch": 1, "steps": 2, "labels": 1}
    guidance = f"autoguidance:model={tmp_path},scale=3"
    plain = built.generate(range(3), guidance="none", **call)
    torch.testing.assert_close(built.generate(range(3), guidance=guidance, **call), plain, rtol=0, atol=1e-4)
    assert len(loaded) == 1, "three batches, one model"
    trained = copy.deepcopy(built)
    for parameter in trained.parameters():
        parameter.data *= 1.1
    trained.save_pretrained(tmp_path)
    led = built.generate(range(3), guidance=guidance, **call)
    assert not torch.allclose(led, plain, rtol=0, atol=1e-3)
    assert len(loaded) == 2


def test_what_a_guidance_names_goes_with_the_model_that_it_guides() -> None:
    named = filters.once(lambda name: model())
    guided = model()
    first = weakref.ref(named(guided, "one"))
    assert named(guided, "one") is first()
    second = weakref.ref(named(guided, "other"))
    gc.collect()
    assert first() is None
    assert named(guided, "other") is second()
    del guided
    gc.collect()
    assert second() is None


def test_autoguidance_by_a_model_that_was_not_pulled_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(OptionError) as caught:
        Auto(model="hf:a/b")(model(), WANTED, None)
    assert str(caught.value) == "a guidance fetches nothing; type: genzoo pull hf:a/b"


@pytest.mark.parametrize("guidance", [Auto(model="x"), Chain(parts=(Threshold(), Auto(model="x"))), ZeroStar()])
def test_a_guidance_is_equal_to_itself_within_a_zoo_and_over_a_grid(guidance: Guidance) -> None:
    zoo = Zoo()
    placed = guidance.within(zoo).over(grid())
    assert placed == guidance
    assert hash(placed) == hash(guidance)
    assert placed != Auto(model="y")
    assert placed != Classifier(extractor="x")


def test_a_copy_of_a_guidance_has_its_zoo() -> None:
    zoo = Zoo()
    placed = Auto(model="x").within(zoo)
    assert isinstance(placed, Auto)
    assert copy.deepcopy(placed).zoo is zoo


def test_a_negative_label_beyond_a_network_without_a_null_class_is_told() -> None:
    built = diffusion()
    condition = {"class_labels": torch.tensor([1])}
    with pytest.raises(OptionError, match="label 11 is out of range; this model knows 0 to 10"):
        Negative(labels=(11,))(built.denoiser, condition, None)
    with pytest.raises(OptionError, match="no classes"):
        Negative(labels=(1,))(built.denoiser, {"encoder_hidden_states": torch.zeros(1, 7, 4)}, None)


def test_autoguidance_by_a_card_of_the_zoo() -> None:
    """Away from itself is nowhere; and it costs two evaluations."""
    shipped = default_zoo().load("ddpm.fashion-mnist")
    call: dict[str, Any] = {"labels": 3, "steps": 2}
    guidance = "autoguidance:model=ddpm.fashion-mnist,scale=3"
    plain = shipped.generate([1, 2], guidance="none", **call)
    torch.testing.assert_close(shipped.generate([1, 2], guidance=guidance, **call), plain, rtol=0, atol=1e-4)
    assert shipped.nfe(shipped.options(guidance=guidance, **call)) == 4
    with pytest.raises(OptionError, match="no diffusion model"):
        shipped.generate([1], guidance="autoguidance:model=dcgan.fashion-mnist", **call)


@pytest.mark.parametrize("kind", ["schedule", "patch", "gan"])
def test_autoguidance_refuses_what_does_not_fit(kind: str, weak: list[Any]) -> None:
    other = ScheduleConfig(kind="cosine").build()
    weak.append(
        nn.Identity()
        if kind == "gan"
        else Weak(Denoiser(nn.Identity(), other if kind == "schedule" else SCHEDULE, "x0", 2 if kind == "patch" else 1))
    )
    with pytest.raises(OptionError, match="name a weaker"):
        Auto(model="weak.card")(model(), WANTED, None)


class Halves(Extractor):
    """Class 0 where the first channel's mean is low, class 1 where it is high: logits (-m w, m w), w = 2."""

    name, width, classes = "halves", 1, ("low", "high")

    def __init__(self) -> None:
        self.weight = torch.tensor(2.0)

    @property
    def digest(self) -> str:
        return "0"

    def extract(self, images: Tensor) -> Features:
        mean = images[:, 0].mean((1, 2))
        return Features(mean[:, None], torch.stack([-mean, mean], 1) * self.weight)


class Mute(Halves):
    name = "mute"

    def extract(self, images: Tensor) -> Features:
        return Features(super().extract(images).vectors)


@pytest.fixture
def extractors(monkeypatch: pytest.MonkeyPatch) -> None:
    zoo = Zoo()

    class Plugin:
        @staticmethod
        def register(zoo: Registrar) -> None:
            zoo.extractor("halves", Halves)
            zoo.extractor("mute", Mute)

    Plugin.register = staticmethod(genzoo.hookimpl(Plugin.register))  # type: ignore[method-assign]
    assert zoo.add(Plugin, name="test"), zoo.broken
    monkeypatch.setattr(filters, "default_zoo", lambda: zoo)


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.usefixtures("extractors")
def test_classifier_guidance_adds_the_gradient(inference: bool) -> None:
    """log p(1 | x) = log sigmoid(2 m w): the gradient is 2 w sigmoid(-2 m w) / 16 in the first channel."""
    denoiser, t = model(), 400.0
    alpha, sigma = SCHEDULE.level(t)
    with torch.inference_mode(inference):
        plain = denoiser(draw(), t, WANTED)
        ours = Classifier(extractor="halves", scale=5.0)(denoiser, WANTED, None)(draw(), t)
    sign = torch.tensor([-1.0, 1.0, 1.0])
    mean = plain[:, 0].mean((1, 2))
    push = torch.zeros_like(plain)
    push[:, 0] = (sign * 4 * torch.sigmoid(-sign * 4 * mean) / 16)[:, None, None]
    torch.testing.assert_close(ours - plain, 5.0 * sigma**2 / (alpha**2 + sigma**2) * push, rtol=1e-4, atol=1e-6)


class Tilt(Halves):
    """log p(0 | x) = 5 m - 500, to rounding: a likelihood that is linear in the image's logarithm."""

    def extract(self, images: Tensor) -> Features:
        mean = images[:, 0].mean((1, 2))
        return Features(mean[:, None], torch.stack([5 * mean - 500, torch.zeros_like(mean)], 1))


@pytest.mark.parametrize("t", TIMES)
def test_classifier_guidance_is_bayes_rule_where_it_can_be_exact(t: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data N(0, I), tilted by exp(5 m), are N(5 / 16, I) in the first channel; their denoiser is known."""
    monkeypatch.setattr(filters, "classifier", lambda guided, zoo, spec: Tilt())
    told, (alpha, sigma) = {"class_labels": torch.zeros(3, dtype=torch.long)}, SCHEDULE.level(t)
    plain, tilted = (Mixture.of([1.0], [[mean, 0.0]], [1.0]) for mean in (0.0, 5 / 16))
    ours = Classifier(extractor="tilt")(oracle(plain, SCHEDULE), told, None)(draw(), t)
    torch.testing.assert_close(ours, tilted.clean(draw(), alpha, sigma), rtol=0, atol=1e-6)


class Plugin:
    """Brings an extractor under a name that nothing installed has."""

    @genzoo.hookimpl
    def register(self, zoo: Registrar) -> None:
        zoo.extractor("halves-of-mine", Halves)


@pytest.mark.parametrize("chained", ["classifier:extractor=halves-of-mine", "chain:parts=none+{}"])
def test_names_are_looked_up_in_the_zoo_of_the_model_and_made_once(
    chained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo = Zoo.discover()
    assert zoo.add(Plugin, name="mine")
    made: list[str] = []
    monkeypatch.setattr(Halves, "__init__", lambda self: (made.append("one"), setattr(self, "weight", 2.0))[0])
    built = diffusion()
    built.zoo = zoo
    spec = chained.format("classifier:extractor=halves-of-mine")
    pushed = built.generate(range(4), batch=1, steps=2, labels=1, guidance=spec)
    assert made == ["one"], "four batches, one extractor"
    assert not torch.equal(pushed, built.generate(range(4), batch=1, steps=2, labels=1, guidance="none"))
    given = Classifier(extractor="halves-of-mine")
    torch.testing.assert_close(built.generate(range(4), batch=1, steps=2, labels=1, guidance=given), pushed)
    built.zoo = None
    with pytest.raises(UnknownName, match="no extractor named 'halves-of-mine'"):
        built.generate([1], steps=2, labels=1, guidance=spec)


def test_a_chain_is_made_of_what_its_zoo_knows() -> None:
    """And of nothing else: a part is named in the text of the chain."""
    zoo = Zoo.discover()

    class Doubled(Unguided):
        pass

    class Plugin:
        @genzoo.hookimpl
        def register(self, zoo: Registrar) -> None:
            zoo.guidance("doubled", Doubled)

    assert zoo.add(Plugin, name="mine")
    assert isinstance(zoo.make("guidance", "chain:parts=doubled+threshold").parts[0], Doubled)
    with pytest.raises(OptionError, match="no guidance named 'doubled'"):
        default_zoo().make("guidance", "chain:parts=doubled+threshold")


@pytest.mark.usefixtures("extractors")
def test_classifier_guidance_refuses_what_it_cannot_use() -> None:
    with pytest.raises(OptionError, match="no opinion"):
        Classifier(extractor="mute")(model(), WANTED, None)(draw(), 400.0)
    with pytest.raises(OptionError, match="knows 2 classes"):
        Classifier(extractor="halves")(model(), NULL, None)(draw(), 400.0)
    with pytest.raises(OptionError, match="unconditional"):
        Classifier(extractor="halves")(model(), {}, None)


def test_gradients_pass_through_the_folding_of_pixels() -> None:
    images = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 1])
    whole = log_likelihood_gradient(Halves(), images, labels)
    folded = log_likelihood_gradient(Halves(), nn.functional.pixel_unshuffle(images, 2), labels, 2)
    torch.testing.assert_close(nn.functional.pixel_shuffle(folded, 2), whole)


# -- chains ----------------------------------------------------------------------------------------------------------


def test_a_chain_works_from_left_to_right() -> None:
    strong, denoiser = ClassifierFree(scale=8.0), model()
    thresholded = Threshold(percentile=0.5)
    outside = Level(30.0, *SCHEDULE.level(30.0))
    after = Chain(parts=(strong, Interval(low=0.5), thresholded))(denoiser, WANTED, NULL)
    before = Chain(parts=(strong, thresholded, Interval(low=0.5)))(denoiser, WANTED, NULL)
    plain = denoiser(draw() * 3, outside.t, WANTED)
    torch.testing.assert_close(before(draw() * 3, outside.t), plain)
    limited = thresholded.after(lambda x, t: plain, denoiser, WANTED, NULL)(draw(), 0.0)
    torch.testing.assert_close(after(draw() * 3, outside.t), limited)
    assert not torch.allclose(limited, plain)


def test_chains_in_words() -> None:
    made = default_zoo().make("guidance", "chain:parts=apg:scale=3;eta=0.5 + interval:low=0.2;high=5+threshold")
    assert made == Chain(parts=(Projected(scale=3.0, eta=0.5), Interval(low=0.2, high=5.0), Threshold()))
    level = Level(1.0, *SCHEDULE.level(1.0))
    assert made.evaluations == 2
    assert made.evaluations_at(level) == 1


@pytest.mark.parametrize(
    ("parts", "words"),
    [("cfg+apg", "only come first"), ("cfg+interval:scale=2", "leave interval's out"), ("cfg+thresold", "did you mean"),
     ("cfg:scale=x", "scale"), ("", "parts")],
)  # fmt: skip
def test_wrong_chains_are_one_line(parts: str, words: str) -> None:
    with pytest.raises(OptionError, match=words) as caught:
        default_zoo().make("guidance", f"chain:parts={parts}")
    assert "\n" not in str(caught.value)


def test_a_chain_passes_the_walk_on() -> None:
    chain = Chain(parts=(PlusPlus(), Threshold()))
    assert chain.clips
    assert not Chain(parts=(Projected(), Threshold())).clips
    chain.over(grid())(model(), WANTED, NULL)(draw(), 500.0)


# -- in a model ------------------------------------------------------------------------------------------------------


def diffusion() -> Diffusion:
    network = {
        "kind": "unet", "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": [16],
        "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"], "layers_per_block": 1,
        "norm_num_groups": 8, "num_class_embeds": 11,
    }  # fmt: skip
    config = DiffusionConfig.model_validate({"network": network, "num_classes": 10, "patch": 2})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Diffusion(config).eval()


@pytest.mark.parametrize(
    "guidance",
    ["rescaled:scale=3", "apg:scale=3,momentum=-0.5", "cfg-zero-star:scale=3", "cfgpp", "negative:labels=3",
     "interval:low=0.5,high=3", "threshold", "classifier:extractor=fashion-classifier",
     "chain:parts=cfg:scale=3+interval:high=3+classifier:extractor=fashion-classifier+threshold"],
)  # fmt: skip
@pytest.mark.parametrize("scheduler", ["ddim:spacing=trailing", "dpmpp-2m", "heun"])
def test_models_generate_and_count(guidance: str, scheduler: str) -> None:
    built = diffusion()
    rows: list[int] = []
    built.denoiser.network.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    given = {"guidance": guidance, "scheduler": scheduler, "steps": 4}
    images = built.generate([1, 2], labels=[3, 4] if "negative" not in guidance else [5, 6], **given)
    assert images.shape == (2, 1, 16, 16)
    assert images.isfinite().all()
    assert sum(rows) == 2 * built.nfe(built.options(**given))
