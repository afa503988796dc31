"""Guidance: what each scale means, how often the network is asked, and who refuses it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import PAIR, MixtureNetwork, oracle
from pydantic import ValidationError
from torch import Tensor

from genzoo.contrast import ClassifierFree
from genzoo.denoiser import Condition, Denoiser, Prediction
from genzoo.errors import OptionError
from genzoo.guidance import Guidance
from genzoo.schedule import ScheduleConfig
from genzoo_plugins.diffusion.guidances import Unguided

SCHEDULE = ScheduleConfig().build()
PREDICTIONS: list[Prediction] = ["eps", "v", "x0"]

#: One sample of each component, one of either again; K = 2 is the null class.
WANTED: Condition = {"class_labels": torch.tensor([0, 1, 1])}
NULL: Condition = {"class_labels": torch.tensor([2, 2, 2])}


def calls(denoiser: Denoiser) -> list[int]:
    """Rows of every evaluation so far."""
    assert isinstance(denoiser.network, MixtureNetwork)
    return denoiser.network.calls


def draw(seed: int = 0) -> Tensor:
    return torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def eps_of(x0: Tensor, x: Tensor, t: float) -> Tensor:
    alpha, sigma = SCHEDULE.level(t)
    return (x - alpha * x0) / sigma


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("guidance", [Unguided(), ClassifierFree(scale=1.0)], ids=repr)
def test_scale_1_is_the_plain_conditional_model(guidance: Guidance, prediction: Prediction) -> None:
    denoiser, plain = oracle(PAIR, SCHEDULE, prediction), oracle(PAIR, SCHEDULE, prediction)
    out = guidance(denoiser, WANTED, NULL)(draw(), 500.0)
    assert torch.equal(out, plain(draw(), 500.0, WANTED))
    assert calls(denoiser) == [3]
    assert guidance.evaluations == 1


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_scale_0_is_the_unconditional_model(prediction: Prediction) -> None:
    denoiser, guidance = oracle(PAIR, SCHEDULE, prediction), ClassifierFree(scale=0.0)
    out = guidance(denoiser, WANTED, NULL)(draw(), 500.0)
    alpha, sigma = SCHEDULE.level(500)
    torch.testing.assert_close(out, PAIR.clean(draw(), alpha, sigma), rtol=0, atol=1e-10)
    assert calls(denoiser) == [3]
    assert guidance.evaluations == 1


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("scale", [-1.5, 0.5, 2.0, 7.5])
def test_other_scales_cost_two_evaluations(scale: float, batched: bool) -> None:
    denoiser, guidance = oracle(PAIR, SCHEDULE), ClassifierFree(scale=scale, batched=batched)
    guidance(denoiser, WANTED, NULL)(draw(), 500.0)
    assert calls(denoiser) == ([6] if batched else [3, 3])
    assert guidance.evaluations == 2


@given(
    scale=st.floats(-10, 10),
    t=st.integers(1, 1000),
    prediction=st.sampled_from(PREDICTIONS),
    batched=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_guidance_extrapolates_eps(scale: float, t: int, prediction: Prediction, batched: bool) -> None:
    """eps = eps_null + s (eps_cond - eps_null), whatever the network predicts and wherever the sum is taken."""
    denoiser, x = oracle(PAIR, SCHEDULE, prediction), draw(t)
    guided = ClassifierFree(scale=scale, batched=batched)(denoiser, WANTED, NULL)(x, float(t))
    free = eps_of(denoiser(x, float(t), NULL), x, t)
    wanted = eps_of(denoiser(x, float(t), WANTED), x, t)
    # x_0 is read from eps with the factor sigma / alpha, up to 157, and eps from x_0 with 1 / sigma, up to 100.
    torch.testing.assert_close(eps_of(guided, x, t), free + scale * (wanted - free), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("scale", [-3.0, 0.3, 2.0, 100.0])
def test_one_evaluation_of_both_branches_is_two_of_one(scale: float, prediction: Prediction) -> None:
    for t in (1.0, 500.0, 1000.0):
        one, two = (
            ClassifierFree(scale=scale, batched=batched)(oracle(PAIR, SCHEDULE, prediction), WANTED, NULL)(draw(), t)
            for batched in (True, False)
        )
        assert torch.equal(one, two)


def test_guidance_is_the_product_of_densities_that_it_is_meant_to_be() -> None:
    """The guided score is that of p(x) (p(x | y) / p(x))^s, here by differentiating the densities themselves."""
    t, scale, x = 300.0, 2.5, draw().requires_grad_()
    alpha, sigma = SCHEDULE.level(t)

    def log_density(point: Tensor, k: int | None) -> Tensor:
        mixture = PAIR if k is None else PAIR.component(k)
        deviations = (alpha**2 * mixture.deviations**2 + sigma**2).sqrt()
        densities = torch.distributions.Normal(alpha * mixture.means, deviations[:, None]).log_prob(point).sum(-1)
        return (densities + mixture.weights.log()).logsumexp(0)

    total = torch.zeros((), dtype=torch.float64)
    for row, label in zip(x, WANTED["class_labels"].tolist(), strict=True):
        for point in row.flatten(1).T:
            free = log_density(point, None)
            total = total + free + scale * (log_density(point, label) - free)
    (score,) = torch.autograd.grad(total, x)
    denoiser, plain = oracle(PAIR, SCHEDULE), x.detach()
    guided = ClassifierFree(scale=scale)(denoiser, WANTED, NULL)(plain, t)
    torch.testing.assert_close(eps_of(guided, plain, t), -sigma * score, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0])
def test_a_model_without_a_null_class_refuses_other_scales(scale: float) -> None:
    denoiser = oracle(PAIR, SCHEDULE)
    with pytest.raises(OptionError, match="no null class, so only guidance=1 works"):
        ClassifierFree(scale=scale)(denoiser, WANTED, None)
    ClassifierFree(scale=1.0)(denoiser, WANTED, None)(draw(), 500.0)
    Unguided()(denoiser, WANTED, None)(draw(), 500.0)
    assert calls(denoiser) == [3, 3], "the refusal came before any work"


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0])
def test_an_unconditional_model_refuses_guidance(scale: float) -> None:
    denoiser = oracle(PAIR, SCHEDULE)
    with pytest.raises(OptionError, match="unconditional"):
        ClassifierFree(scale=scale)(denoiser, {}, None)
    for guidance in (ClassifierFree(scale=1.0), Unguided()):
        assert guidance(denoiser, {}, None)(draw(), 500.0).shape == (3, 2, 4, 4)


@pytest.mark.parametrize(
    "given_settings",
    [{"scale": "2"}, {"scale": True}, {"scale": float("nan")}, {"scale": 1e9}, {"batched": 1}, {"s": 2.0}],
)
def test_settings_out_of_range_are_refused(given_settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(given_settings))):
        ClassifierFree(**given_settings)


def test_every_condition_is_doubled() -> None:
    """Token conditions travel as class labels do, each with its own null."""
    told: list[tuple[int, dict[str, Tensor]]] = []

    class Listener(torch.nn.Module):
        def forward(self, x: Tensor, timestep: Tensor, **condition: Tensor) -> Tensor:
            told.append((len(x), condition))
            return x

    condition = {"encoder_hidden_states": torch.ones(3, 5, 8), "class_labels": torch.tensor([0, 1, 1])}
    null = {"encoder_hidden_states": torch.zeros(3, 5, 8), "class_labels": torch.tensor([2, 2, 2])}
    ClassifierFree(scale=3.0)(Denoiser(Listener(), SCHEDULE, "x0"), condition, null)(draw(), 500.0)
    ((rows, both),) = told
    assert rows == 6
    assert torch.equal(both["encoder_hidden_states"][:3], null["encoder_hidden_states"])
    assert torch.equal(both["encoder_hidden_states"][3:], condition["encoder_hidden_states"])
    assert both["class_labels"].tolist() == [2, 2, 2, 0, 1, 1]
