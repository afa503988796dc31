"""Walks whose times are known beforehand: the same results, and a network's own part worked out once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genzoo.denoiser import Condition, Denoise, Denoiser
from genzoo.foresight import MOST_CONDITIONS, Foresees, Foresight
from genzoo.schedule import ScheduleConfig
from genzoo_plugins.diffusion.unet import UNet2D, UNet2DConfig

SCHEDULE = ScheduleConfig().build()
TIMES = (900.0, 500.0, 2.0)


def foresight() -> Foresight:
    return Foresight(SCHEDULE, {t: SCHEDULE.level(t) for t in TIMES})


def asked(denoiser: Denoiser, known: Foresight, condition: Condition) -> Denoise:
    """A denoiser on a walk whose times are known."""
    return denoiser.foreseeing(lambda x, t: denoiser(x, t, condition), known)


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
            told = asked(denoiser, known, condition)(x, t)
            torch.testing.assert_close(told, plain, atol=1e-4, rtol=1e-5)


def test_one_look_a_condition_and_no_more_conditions_than_are_kept() -> None:
    seer = Seer()
    denoiser, x, known = Denoiser(seer, SCHEDULE, "x0"), torch.ones(1, 1, 1, 1), foresight()
    condition = {"label": torch.zeros(1)}
    with torch.no_grad():
        for t in TIMES:
            assert asked(denoiser, known, condition)(x, t).item() == -(t - 1)
            # The same tensors, in whatever they come.
            assert asked(denoiser, known, dict(condition))(x, t).item() == -(t - 1)
        assert seer.looked == 1
        assert asked(denoiser, known, condition)(x, 321.0).item() == 320
        condition["label"] = torch.zeros(1)
        asked(denoiser, known, condition)(x, TIMES[0])
        assert seer.looked == 2, "another tensor in the same mapping is another condition"
        for _ in range(2 * MOST_CONDITIONS):
            asked(denoiser, known, {"label": torch.zeros(1)})(x, TIMES[0])
    assert seer.looked == MOST_CONDITIONS
    assert denoiser(x, TIMES[0], condition).item() == 899


def test_nothing_is_foreseen_for_gradients_or_of_many_rows() -> None:
    seer = Seer()
    denoiser, known = Denoiser(seer, SCHEDULE, "x0"), foresight()
    asked(denoiser, known, {})(torch.ones(1, 1, 1, 1), TIMES[0])
    with torch.no_grad():
        asked(denoiser, known, {"label": torch.zeros(1000)})(torch.ones(1000, 1, 1, 1), TIMES[0])
    assert seer.looked == 0


def test_walks_that_take_turns_and_one_that_fails() -> None:
    seer = Seer()
    denoiser, x = Denoiser(seer, SCHEDULE, "x0"), torch.ones(1, 1, 1, 1)
    walks = [asked(denoiser, foresight(), {}) for _ in range(2)]

    def nested(x: Tensor, t: float) -> Tensor:
        return walks[1](x, t) + denoiser(x, t, {})

    def failing(x: Tensor, t: float) -> Tensor:
        raise ValueError("no")

    with torch.no_grad():
        for t in TIMES:
            assert [walk(x, t).item() for walk in walks] == [-(t - 1)] * 2
        assert denoiser.foreseeing(nested, foresight())(x, TIMES[0]).item() == -2 * 899
        with pytest.raises(ValueError, match="no"):
            denoiser.foreseeing(failing, foresight())(x, TIMES[0])
        assert denoiser(x, TIMES[0], {}).item() == 899, "nothing is known once no walk asks"
    assert seer.looked == 3


def test_threads_that_share_a_model_leave_nothing_behind() -> None:
    denoiser, x = Denoiser(Seer(), SCHEDULE, "x0"), torch.ones(1, 1, 1, 1)

    def walk(_: int) -> list[float]:
        ask = asked(denoiser, foresight(), {})
        with torch.no_grad():
            return [ask(x, t).item() for _ in range(50) for t in TIMES]

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(walk, range(8)):
            # One walk may end the other's foresight, which costs time and no more.
            assert [abs(each) for each in found] == [t - 1 for t in TIMES] * 50
    assert denoiser._walks == []
