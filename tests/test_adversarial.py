"""What adversarial recipes share, against the alternation written out plainly."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny import squares
from torch.nn import functional as F

from genzoo.errors import TrainingError
from genzoo.recipe import Batch
from genzoo_plugins.dcgan.recipe import DCGANRecipe, DCGANRecipeConfig

DATA = squares(32)
MODEL = {
    "image_size": 28,
    "channels": 1,
    "latent": 4,
    "width_g": 4,
    "width_d": 4,
    "num_classes": 2,
    "spectral_norm": True,
}


def make(steps: int = 10, **changes) -> DCGANRecipe:
    settings = {"model": MODEL, "rate": {"peak": 2e-3}, **changes}
    torch.manual_seed(0)
    return DCGANRecipe(DCGANRecipeConfig.model_validate(settings), DATA, steps=steps, device=torch.device("cpu"))


def batch(step: int) -> Batch:
    rows = torch.arange(8) + 8 * step
    return Batch(DATA.floats(rows), DATA.labels[rows], step)


def plain_step(g, d, adam_g, adam_d, given: Batch, z: torch.Tensor, weight: float) -> None:
    """Non-saturating, D first, G by the same fake images; ``weight`` of the squared gradient at real images."""
    real, fake = given.images.clone().requires_grad_(), g(z, given.labels)
    ones, zeros = torch.ones(8), torch.zeros(8)
    logits = d(real, given.labels)
    loss = F.binary_cross_entropy_with_logits(logits, ones)
    loss = loss + F.binary_cross_entropy_with_logits(d(fake.detach(), given.labels), zeros)
    if weight:
        (slope,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
        loss = loss + weight * (slope**2).sum() / 8
    adam_d.zero_grad()
    loss.backward()
    adam_d.step()
    adam_g.zero_grad()
    F.binary_cross_entropy_with_logits(d(fake, given.labels), ones).backward()
    adam_g.step()


@pytest.mark.parametrize("every", [1, 2])
def test_steps_are_the_plain_alternation_with_a_lazy_penalty(every: int) -> None:
    recipe = make(r1=3.0, r1_every=every, rate_d={"peak": 4e-3}, beta1=0.3, beta2=0.9)
    g, d = copy.deepcopy(recipe.model.network), copy.deepcopy(recipe.discriminator)
    adam_g = torch.optim.Adam(g.parameters(), lr=2e-3, betas=(0.3, 0.9))
    adam_d = torch.optim.Adam(d.parameters(), lr=4e-3, betas=(0.3, 0.9))
    for step in range(3):
        values = recipe.step(batch(step), torch.Generator().manual_seed(step))
        assert list(values) == ["loss", "loss_d", "real_logit", "fake_logit"]
        z = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        plain_step(g, d, adam_g, adam_d, batch(step), z, 1.5 * every if step % every == 0 else 0)
    for mine, plain in (recipe.model.network, g), (recipe.discriminator, d):
        for (name, one), (_, two) in zip(mine.state_dict().items(), plain.state_dict().items(), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-3, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}")
    assert all(p.requires_grad for p in recipe.discriminator.parameters())


def test_the_discriminators_rate_is_the_generators_where_absent() -> None:
    recipe = make(rate={"peak": 1e-3, "shape": "cosine"})
    recipe.step(batch(0), torch.Generator().manual_seed(0))
    recipe.step(Batch(DATA.floats(slice(0, 8)), DATA.labels[:8], 5), torch.Generator().manual_seed(1))
    assert recipe.optimizer.param_groups[0]["lr"] == recipe.optimizer_d.param_groups[0]["lr"] == pytest.approx(5e-4)


@pytest.mark.parametrize(
    ("change", "says"), [({"image_size": 32}, "but squares holds"), ({"num_classes": 3}, "has 2 classes")]
)
def test_a_model_that_does_not_fit_the_data_is_refused(change: dict, says: str) -> None:
    with pytest.raises(TrainingError, match=says):
        make(model={**MODEL, **change})
