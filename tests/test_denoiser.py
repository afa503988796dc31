"""Predictions eps, v and x_0 become the same x_0, as they do in diffusers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import PAIR, oracle
from torch import Tensor, nn

from genzoo.denoiser import Denoiser, Prediction, target, to_x0
from genzoo.errors import OptionError
from genzoo.schedule import DiscreteSchedule, ScheduleConfig

PREDICTIONS: list[Prediction] = ["eps", "v", "x0"]
THEIRS = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
ENDLESS = ScheduleConfig(zero_terminal_snr=True)


class Recorder(nn.Module):
    """A network that answers with a fixed tensor and remembers what it was told."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer
        self.told: list[tuple[Tensor, dict[str, Tensor]]] = []

    def forward(self, x: Tensor, timestep: Tensor, **condition: Tensor) -> Tensor:
        self.told.append((timestep, condition))
        return self.answer


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(
    angle=st.floats(0, math.pi / 2),
    prediction=st.sampled_from([*PREDICTIONS, "flow", "edm"]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=200, deadline=None)
def test_what_must_be_predicted_gives_x0_back(angle: float, prediction: Prediction, seed: int) -> None:
    alpha, sigma = math.sin(math.pi / 2 - angle), math.sin(angle)
    x0, eps = draw(2, 2, 3, 4, 4, seed=seed)
    x = alpha * x0 + sigma * eps
    levels = torch.tensor([alpha, sigma], dtype=torch.float64)
    output = target(x0, eps, *levels, prediction)
    if prediction == "eps" and alpha < 1e-6:
        return
    # An eps prediction is divided by alpha, and rounding with it.
    error = 1e-14 / alpha if prediction == "eps" else 1e-14
    torch.testing.assert_close(to_x0(output, x, alpha, sigma, prediction), x0, rtol=0, atol=error)


@pytest.mark.parametrize("prediction", ["v", "x0", "flow", "edm"])
def test_pure_noise_hides_nothing_from_v_and_x0(prediction: Prediction) -> None:
    x0, eps = draw(2, 2, 3, 4, 4)
    output = target(x0, eps, torch.tensor(0.0), torch.tensor(1.0), prediction)
    denoiser = Denoiser(Recorder(output), ENDLESS.build(), prediction)
    for found in (
        to_x0(output, eps, 0.0, 1.0, prediction),
        denoiser(eps, 1000.0, {}),
        denoiser(eps, torch.full((2,), 1000.0, dtype=torch.float64), {}),
    ):
        torch.testing.assert_close(found, x0, rtol=0, atol=1e-15)


@pytest.mark.parametrize("t", [1000.0, torch.tensor([3.0, 1000.0], dtype=torch.float64)], ids=["one", "many"])
def test_eps_at_pure_noise_is_refused(t: Any) -> None:
    network = Recorder(torch.zeros(2, 3, 4, 4))
    with pytest.raises(OptionError, match="predicts v or x0") as caught:
        Denoiser(network, ENDLESS.build(), "eps")(torch.zeros(2, 3, 4, 4), t, {})
    assert "\n" not in str(caught.value)
    assert not network.told


@pytest.mark.parametrize("timestep", [0, 1, 250, 999])
@pytest.mark.parametrize("scheduler", [DDIMScheduler, DDPMScheduler])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_conversions_are_diffusers(scheduler: Any, timestep: int, prediction: Prediction) -> None:
    theirs = scheduler(prediction_type=THEIRS[prediction], clip_sample=False)
    theirs.alphas_cumprod = ScheduleConfig().table  # float64, so that only the conversion is compared
    theirs.set_timesteps(1000)
    x, output = draw(2, 2, 3, 4, 4, seed=timestep)
    expected = theirs.step(output, timestep, x).pred_original_sample
    denoiser = Denoiser(Recorder(output), ScheduleConfig().build(), prediction)
    torch.testing.assert_close(denoiser(x, timestep + 1.0, {}), expected, rtol=1e-11, atol=1e-11)


def test_velocity_is_diffusers() -> None:
    theirs = DDPMScheduler()
    theirs.alphas_cumprod = ScheduleConfig().table
    x0, eps = draw(2, 4, 3, 4, 4)
    timesteps = torch.tensor([0, 1, 250, 999])
    alpha, sigma = (level.view(-1, 1, 1, 1) for level in ScheduleConfig().build().levels(timesteps + 1))
    torch.testing.assert_close(
        target(x0, eps, alpha, sigma, "v"), theirs.get_velocity(x0, eps, timesteps), rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_all_predictions_of_one_oracle_are_one_denoiser(prediction: Prediction) -> None:
    schedule, x = ScheduleConfig().build(), draw(2, 2, 4, 4)
    for t in (1.0, 300.0, 900.0):
        alpha, sigma = schedule.level(t)
        estimate = oracle(PAIR, schedule, prediction)(x, t, {})
        torch.testing.assert_close(estimate, PAIR.clean(x, alpha, sigma), rtol=0, atol=1e-10)


def test_the_oracle_is_the_conditional_mean() -> None:
    """Checked by drawing from the joint distribution of x_0 and x_t, near one x_t, rather than by its own formula."""
    stream = torch.Generator().manual_seed(0)
    x0 = PAIR.sample(2_000_000, stream)
    x = 0.8 * x0 + 0.6 * torch.randn(x0.shape, generator=stream, dtype=torch.float64)
    for point in ([0.0, 0.0], [0.6, -0.2]):
        here = torch.tensor(point, dtype=torch.float64)[None, :, None, None]
        near = ((x - here).abs() < 0.05).all(1).flatten()
        mean, error = x0[near].mean(0), x0[near].std(0) / near.sum() ** 0.5
        assert near.sum() > 3000
        difference = (PAIR.clean(here, 0.8, 0.6)[0] - mean).abs()
        assert bool((difference < 4 * error + 1e-3).all())


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_one_time_is_many_equal_times(prediction: Prediction) -> None:
    schedule, x, output = ScheduleConfig().build(), draw(3, 2, 4, 4), draw(3, 2, 4, 4, seed=1)
    network = Recorder(output)
    denoiser = Denoiser(network, schedule, prediction)
    one = denoiser(x, 250.0, {})
    many = denoiser(x, torch.full((3,), 250.0, dtype=torch.float64), {})
    torch.testing.assert_close(one, many, rtol=1e-14, atol=1e-14)
    apart = denoiser(x, torch.tensor([250.0, 1.0, 999.0], dtype=torch.float64), {})
    assert torch.equal(apart[:1], many[:1])
    if prediction != "x0":
        assert not torch.equal(apart[1:], many[1:])


def test_the_network_is_told_the_fields_timestep_and_the_condition() -> None:
    network = Recorder(torch.zeros(2, 1, 4, 4))
    denoiser = Denoiser(network, ScheduleConfig().build(), "x0")
    x, labels = torch.zeros(2, 1, 4, 4), torch.tensor([3, 4])
    denoiser(x, 500.0, {"class_labels": labels})
    denoiser(x.bfloat16(), torch.tensor([1.0, 1000.0], dtype=torch.float64), {})
    (one, condition), (many, nothing) = network.told
    assert one.shape == ()
    assert float(one) == 499
    assert torch.equal(condition["class_labels"], labels)
    assert torch.equal(many, torch.tensor([0.0, 999.0])), "float32: bfloat16 cannot tell 999 from 1000"
    assert one.dtype == many.dtype == torch.float32
    assert nothing == {}


def test_a_learned_variance_is_left_aside() -> None:
    output = draw(2, 6, 4, 4)
    denoiser = Denoiser(Recorder(output), ScheduleConfig().build(), "x0")
    assert torch.equal(denoiser(draw(2, 3, 4, 4), 10.0, {}), output[:, :3])


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_x0_has_the_dtype_of_x(dtype: torch.dtype, prediction: Prediction) -> None:
    x, output = draw(2, 1, 4, 4).to(dtype), draw(2, 1, 4, 4, seed=1).to(dtype)
    denoiser = Denoiser(Recorder(output), DiscreteSchedule([0.9, 0.4]), prediction)
    for t in (1.0, torch.tensor([1.0, 2.0], dtype=torch.float64)):
        before = x.clone(), output.clone()
        assert denoiser(x, t, {}).dtype == dtype
        assert torch.equal(x, before[0])
        assert torch.equal(output, before[1])
