"""Walks whose times are known beforehand: the same results, and a network's own part worked out once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genzoo.denoiser import Condition, Denoiser
from genzoo.foresight import MOST_CONDITIONS, Foresees, Foresight
from genzoo.schedule import ScheduleConfig
from genzoo_plugins.diffusion.unet import UNet2D, UNet2DConfig

SCHEDULE = ScheduleConfig().build()
TIMES = (900.0, 500.0, 2.0)


def foresight() -> Foresight:
    return Foresight(SCHEDULE, {t: SCHEDULE.level(t) for t in TIMES})


class Seer(nn.Module):
    """A network that counts how often it looks ahead, and says whether it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.looked = 0

    def foresee(self, timesteps: Tensor, condition: Condition) -> list[dict[str, Any]]:
        self.looked += 1
        return [{"told": t} for t in timesteps]

    def forward(self, x: Tensor, t: Tensor, told: Tensor | None = None, **condition: Tensor) -> Tensor:
        assert told is None or told == t
        return x * t * (1 if told is None else -1)


def unet(**keys: Any) -> UNet2D:
    torch.manual_seed(0)
    config = UNet2DConfig(
        sample_size=8, block_out_channels=(8, 16), norm_num_groups=4, attention_head_dim=4, layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"), **keys,
    )  # fmt: skip
    return UNet2D(config).eval()


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"num_class_embeds": 5},
        {"class_embed_type": "timestep", "resnet_time_scale_shift": "scale_shift"},
        {"time_embedding_type": "fourier", "downsample_type": "resnet", "upsample_type": "resnet"},
        {"time_embedding_type": "learned", "num_train_timesteps": 1000},
    ],
)
def test_a_unet_foresees_what_it_would_be_told(keys: dict[str, Any]) -> None:
    network = unet(**keys)
    assert isinstance(network, Foresees)
    denoiser = Denoiser(network, SCHEDULE, "eps")
    condition = {"class_labels": torch.tensor([3, 1])} if {"num_class_embeds", "class_embed_type"} & keys.keys() else {}
    x, known = torch.randn(2, 3, 8, 8), foresight()
    with torch.no_grad():
        for t in (*TIMES, 321.0):
            plain = denoiser(x, t, condition)
            with denoiser.foreseeing(known):
                torch.testing.assert_close(denoiser(x, t, condition), plain, atol=1e-4, rtol=1e-5)


def test_one_look_a_condition_and_no_more_conditions_than_are_kept() -> None:
    seer = Seer()
    denoiser, x, known = Denoiser(seer, SCHEDULE, "x0"), torch.ones(1, 1, 1, 1), foresight()
    label = torch.zeros(1)
    with torch.no_grad(), denoiser.foreseeing(known):
        for t in TIMES:
            assert denoiser(x, t, {"label": label}).item() == -(t - 1)
        assert seer.looked == 1
        assert denoiser(x, 321.0, {"label": label}).item() == 320
        for _ in range(2 * MOST_CONDITIONS):
            denoiser(x, TIMES[0], {"label": torch.zeros(1)})
    assert seer.looked == MOST_CONDITIONS
    assert denoiser(x, TIMES[0], {"label": label}).item() == 899


def test_nothing_is_foreseen_for_gradients_or_of_many_rows() -> None:
    seer = Seer()
    denoiser, known = Denoiser(seer, SCHEDULE, "x0"), foresight()
    with denoiser.foreseeing(known):
        denoiser(torch.ones(1, 1, 1, 1), TIMES[0], {})
        with torch.no_grad():
            denoiser(torch.ones(1000, 1, 1, 1), TIMES[0], {"label": torch.zeros(1000)})
    assert seer.looked == 0


def test_walks_that_take_turns() -> None:
    denoiser = Denoiser(Seer(), SCHEDULE, "x0")
    with denoiser.foreseeing(foresight()) as _, denoiser.foreseeing(foresight()):
        pass
    assert denoiser._foresight is None
