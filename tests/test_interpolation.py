"""The way from seed to seed: it passes through the seeds' own images and stays where noise lies."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import card, model_folder, recipe_text

from genzoo.cards import Card
from genzoo.errors import OptionError
from genzoo.generator import Generator
from genzoo.interpolation import Stop, Way, slerp, stops
from genzoo.noise import Noise
from genzoo.registry import default_zoo
from genzoo.weights import build

SEEDS = [3, 5, 9]


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_slerp_on_the_unit_sphere(seed: int, part: float) -> None:
    """The angle grows evenly and the length stays: the definition, worked out in another way."""
    stream = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 3, 3, generator=stream, dtype=torch.float64)
    a, b = a / a.norm(), b / b.norm()
    middle = slerp(a, b, part)
    assert middle.shape == (3, 3)
    assert float(middle.norm()) == pytest.approx(1, abs=1e-9)
    whole = math.acos(float((a * b).sum()))
    assert math.acos(min(1.0, float((a * middle).sum()))) == pytest.approx(part * whole, abs=1e-6)
    torch.testing.assert_close(slerp(a, a, part), a)


def test_the_stops() -> None:
    assert stops(3, 2) == (Stop(0, 1, 0), Stop(0, 1, 0.5), Stop(1, 2, 0), Stop(1, 2, 0.5), Stop(2, 2, 0))
    assert stops(3, 1, loop=True) == (Stop(0, 1, 0), Stop(1, 2, 0), Stop(2, 0, 0))
    assert len(stops(3, 24)) == 49
    assert len(stops(3, 24, loop=True)) == 72
    for count, frames in ((1, 3), (0, 3), (2, 0), (2, -1)):
        with pytest.raises(OptionError, match="give"):
            stops(count, frames)


def test_noise_between_seeds_keeps_its_length() -> None:
    """Straight lines would dip to 0.71 of it halfway."""
    way = Way(SEEDS, stops(3, 8))
    noise = way.draw(1, 32, 32)
    assert torch.equal(noise[::8], Noise(SEEDS).normal(1, 32, 32))
    lengths = noise.flatten(1).norm(dim=1)
    assert lengths.min() > 0.95 * 32
    assert lengths.max() < 1.05 * 32
    assert torch.equal(way[[3, 16]].draw(1, 32, 32), noise[[3, 16]])


@pytest.fixture(scope="module", params=["dcgan", "diffusion"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator:
    if request.param == "dcgan":
        return default_zoo().load(str(model_folder(tmp_path_factory.mktemp("models") / "gan")))
    settings = yaml.safe_load(recipe_text(Path("nowhere")))["settings"]["model"]
    changes = {"generator": "diffusion", "shape": [1, 8, 8], "classes": ["left", "right"], "data": None}
    drawn = torch.random.get_rng_state()
    torch.manual_seed(0)
    made = build(default_zoo(), Card.model_validate({**card(), **changes, "config": settings, "options": {"steps": 3}}))
    torch.random.set_rng_state(drawn)
    return made


def test_any_model_passes_through_the_seeds(model: Generator) -> None:
    frames = model.interpolate(SEEDS, 4, batch=3, exact=True, labels=1)
    assert frames.shape == (9, *model.shape)
    assert torch.equal(frames[::4], model.generate(SEEDS, batch=3, exact=True, labels=1))
    steps = (frames[1:] - frames[:-1]).flatten(1).norm(dim=1)
    assert steps.min() > 0
    assert steps.max() < (frames[0] - frames[4]).norm() + (frames[4] - frames[8]).norm()
    looped = model.interpolate(SEEDS, 4, loop=True, batch=3, exact=True, labels=1)
    assert torch.equal(looped[:9], frames)
    assert len(looped) == 12


def test_a_class_is_one(model: Generator) -> None:
    frames = model.interpolate(SEEDS, 1)
    (label,) = model.label_numbers(None, Noise(SEEDS[:1])) or ()
    assert torch.equal(frames, model.interpolate(SEEDS, 1, labels=label))
    with pytest.raises(OptionError, match="noise has no way between classes"):
        model.interpolate(SEEDS, 1, labels=[0, 1, 0])
    with pytest.raises(OptionError, match="no option named 'stepps'"):
        model.interpolate(SEEDS, 1, stepps=3)


def test_noise_drawn_on_the_way_is_the_first_seeds(model: Generator) -> None:
    if "scheduler" not in type(model).Options.model_fields:
        pytest.skip("it draws nothing on the way")
    frames = model.interpolate([3, 3], 3, scheduler="ddpm", labels=0)
    still = model.generate([3], scheduler="ddpm", labels=0).expand_as(frames)
    torch.testing.assert_close(frames, still, atol=1e-5, rtol=0)
