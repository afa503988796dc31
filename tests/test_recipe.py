"""One step of an optimizer, as every recipe takes it, against the same written out."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from genzoo.recipe import descend


@pytest.mark.parametrize("clip_norm", [None, 1e-3, 1e3])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_a_step_is_the_plain_one(kind: type[torch.optim.Optimizer], clip_norm: float | None) -> None:
    torch.manual_seed(0)
    mine = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
    plain = copy.deepcopy(mine)
    # Two groups, as of a network and its embedding.
    mine_by, plain_by = (
        kind([{"params": net[0].parameters()}, {"params": net[2].parameters()}], lr=1.0) for net in (mine, plain)
    )
    x, y = torch.randn(2, 8, 3), torch.randn(2, 8, 1)
    for step, rate in enumerate((0.1, 0.02)):
        told = descend(F.mse_loss(mine(x[step]), y[step]), mine_by, rate, clip_norm)
        plain_by.zero_grad()
        F.mse_loss(plain(x[step]), y[step]).backward()
        norm = torch.cat([p.grad.flatten() for p in plain.parameters()]).norm()
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(plain.parameters(), clip_norm)
        for group in plain_by.param_groups:
            group["lr"] = rate
        plain_by.step()
        assert told == ({} if clip_norm is None else {"gradient_norm": pytest.approx(float(norm), rel=1e-5)})
        for one, two in zip(mine.parameters(), plain.parameters(), strict=True):
            assert torch.equal(one, two)
