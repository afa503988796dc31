"""Adversarial losses and their penalty, against torch's cross entropy and formulas worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from genzoo.losses import LOSSES, hinge, non_saturating, r1_penalty


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_losses_by_hand() -> None:
    real, fake = torch.tensor([2.0, -0.5]), torch.tensor([0.25, -3.0])

    def softplus(t: float) -> float:
        return math.log(1 + math.exp(t))

    expected = (softplus(-2) + softplus(0.5)) / 2 + (softplus(0.25) + softplus(-3)) / 2
    assert non_saturating.discriminator(real, fake).item() == pytest.approx(expected, abs=1e-6)
    assert non_saturating.generator(fake).item() == pytest.approx((softplus(-0.25) + softplus(3)) / 2, abs=1e-6)
    assert hinge.discriminator(real, fake).item() == pytest.approx((0 + 1.5) / 2 + (1.25 + 0) / 2, abs=1e-6)
    assert hinge.generator(fake).item() == pytest.approx(2.75 / 2, abs=1e-6)


def test_non_saturating_is_the_cross_entropy_of_the_script() -> None:
    real, fake = torch.randn(50), torch.randn(50)
    entropy = nn.BCELoss()
    expected = entropy(real.sigmoid(), torch.ones(50)) + entropy(fake.sigmoid(), torch.zeros(50))
    torch.testing.assert_close(non_saturating.discriminator(real, fake), expected)
    torch.testing.assert_close(non_saturating.generator(fake), entropy(fake.sigmoid(), torch.ones(50)))


@pytest.mark.parametrize("name", ["non_saturating", "hinge"])
def test_losses_stay_finite(name: str) -> None:
    loss = LOSSES[name]
    for value in (-100.0, 100.0):
        logits = torch.full((4,), value, requires_grad=True)
        results = [loss.discriminator(logits, -logits), loss.discriminator(-logits, logits), loss.generator(logits)]
        for result in results:
            assert result.shape == ()
            assert result.isfinite()
            (gradient,) = torch.autograd.grad(result, logits)
            assert gradient.isfinite().all()


def test_non_saturating_generator_does_not_saturate() -> None:
    logits = torch.full((1,), -100.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(non_saturating.generator(logits), logits)
    assert gradient.item() == pytest.approx(-1)


def test_losses_are_registered() -> None:
    assert {"non_saturating": non_saturating, "hinge": hinge} == LOSSES


def test_r1_penalty_by_hand() -> None:
    weight = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    images = torch.tensor([[0.5, 1.0, -1.0], [2.0, 0.0, 1.0]], requires_grad=True)
    # D(x) = sum_i w_i x_i^2 has the gradient 2 w_i x_i.
    penalty = r1_penalty(images.square() @ weight, images)
    assert penalty.item() == pytest.approx(((1 + 16 + 36) + (16 + 0 + 36)) / 2)
    (gradient,) = torch.autograd.grad(penalty, weight)
    # d/dw_i of mean_n 4 w_i^2 x_ni^2 is 8 w_i mean_n x_ni^2.
    torch.testing.assert_close(gradient, 8 * torch.tensor([1.0, -2.0, 3.0]) * torch.tensor([4.25, 1.0, 2.0]) / 2)


def test_r1_penalty_gives_advice() -> None:
    images = torch.rand(3, 4)
    weight = torch.rand(4, requires_grad=True)
    logits: Tensor = images @ weight
    with pytest.raises(ValueError, match="requires_grad_"):
        r1_penalty(logits, images)
    with pytest.raises(ValueError, match="do not depend"):
        r1_penalty(logits, torch.rand(3, 4, requires_grad=True))
    with torch.no_grad():
        logits = images @ weight
    with pytest.raises(ValueError, match="gradients enabled"):
        r1_penalty(logits, images.requires_grad_())


def test_r1_of_linear_and_quadratic_discriminators() -> None:
    a = torch.randn(6, dtype=torch.float64, requires_grad=True)
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    penalty = r1_penalty(x @ a, x)
    torch.testing.assert_close(penalty, a.square().sum())
    penalty.backward()
    torch.testing.assert_close(a.grad, 2 * a.detach())
    matrix = torch.randn(6, 6, dtype=torch.float64)
    quadratic = torch.einsum("ni,ij,nj->n", x, matrix, x)
    gradient = x @ (matrix + matrix.T)
    torch.testing.assert_close(r1_penalty(quadratic, x), gradient.square().sum(dim=1).mean())
