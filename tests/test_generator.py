"""generate(): a picture depends on its own seed, and mistakes say what to type next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genzoo.cards import Card
from genzoo.errors import GenzooError, OptionError
from genzoo.frozen import Frozen
from genzoo.generator import DEFAULT_BATCH, Generator, Options, evaluating
from genzoo.noise import Noise

CLASSES = ("Ankle boot", "Sneaker", "Sandal", "7")


class ToyConfig(Frozen):
    classes: int = 4


class ToyOptions(Options):
    steps: int = 3
    strength: float = 1.0


class Toy(Generator):
    """A few layers that behave otherwise in training, called step by step with fresh noise."""

    Config: ClassVar[type[Frozen]] = ToyConfig
    Options: ClassVar[type[Options]] = ToyOptions
    config: ToyConfig

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(max(config.classes, 1), 16)
        self.layers = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Dropout(0.5), nn.SiLU())
        self.last = nn.Conv2d(16, 1, 3, padding=1)
        self.rows: list[int] = []
        self.states: list[tuple[bool, bool]] = []

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1, 9, 7

    @property
    def num_classes(self) -> int:
        return self.config.classes

    def sample(self, noise: Noise, options: Any) -> Iterator[Tensor]:
        x = noise.start(*self.shape)
        labels = options.labels or (0,) * len(noise)
        vector = self.embedding(torch.tensor(labels))[:, :, None, None]
        for _ in range(options.steps):
            self.rows.append(len(x))
            self.states.append((any(m.training for m in self.modules()), torch.is_grad_enabled()))
            x = x + options.strength * self.last(self.layers(x) + vector) + 0.1 * noise.normal(*self.shape).to(x)
            yield x


def make(classes: int = 4, named: bool = True, **options: Any) -> Toy:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        toy = Toy(ToyConfig(classes=classes))
        nn.init.normal_(toy.embedding.weight, std=0.3)
    if named:
        toy.card = Card(
            name="toy.test",
            summary="A toy",
            generator="toy",
            shape=toy.shape,
            classes=CLASSES[:classes],
            options=options,
            licence="MIT",
            paper="none",
        )
    return toy.eval()


@pytest.fixture
def toy() -> Toy:
    return make()


# -- what comes out --------------------------------------------------------------------------------------------------


def test_images_are_float32_in_range_and_of_the_right_shape(toy: Toy) -> None:
    images = toy.generate(range(5), strength=30.0)
    assert images.shape == (5, 1, 9, 7)
    assert images.dtype == torch.float32
    assert float(images.min()) == -1
    assert float(images.max()) == 1
    assert not images.requires_grad
    assert not images.is_inference(), "the caller may differentiate through it, and write to it"
    assert toy.bfloat16().generate([0]).dtype == torch.float32


@pytest.mark.parametrize(
    "seeds",
    [3, (3,), [3], np.int64(3), np.array([3]), torch.tensor(3), torch.tensor([3]), range(3, 4), iter([3])],
    ids=repr,
)
def test_seeds_come_in_many_forms(toy: Toy, seeds: Any) -> None:
    assert torch.equal(toy.generate(seeds), toy.generate([3]))


def test_seed_0_is_the_default(toy: Toy) -> None:
    assert torch.equal(toy.generate(), toy.generate([0]))


# -- a picture depends on its seed alone -----------------------------------------------------------------------------


def test_neighbours_and_position_do_not_matter(toy: Toy) -> None:
    """Bit-equal at one batch size: exact pads a short batch."""
    seeds = [5, 1, 9, 5, 2, 77, 4]
    together = toy.generate(seeds, batch=4, exact=True)
    assert torch.equal(together[0], together[3])
    for i, seed in enumerate(seeds):
        assert torch.equal(toy.generate(seed, batch=4, exact=True)[0], together[i])
    assert torch.equal(toy.generate(seeds[::-1], batch=4, exact=True).flip(0), together)
    assert toy.rows == [4] * len(toy.rows), "every call of the network had the same number of rows"


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 64, None])
def test_batches_do_not_matter_beyond_rounding(toy: Toy, batch: int | None) -> None:
    seeds = list(range(7))
    torch.testing.assert_close(toy.generate(seeds, batch=batch), toy.generate(seeds, batch=5), rtol=0, atol=1e-5)
    assert max(toy.rows) <= max(batch or DEFAULT_BATCH, 5)


def test_labels_stay_with_their_seeds(toy: Toy) -> None:
    together = toy.generate([1, 2, 3], labels=[2, 0, 1], batch=2, exact=True)
    for i, (seed, label) in enumerate([(1, 2), (2, 0), (3, 1)]):
        assert torch.equal(toy.generate(seed, labels=label, batch=2, exact=True)[0], together[i])
    by_default = toy.generate([1, 2, 3], batch=2, exact=True)
    assert torch.equal(toy.generate([3, 1], batch=2, exact=True), by_default[[2, 0]]), "each seed draws its own class"


def test_batches_are_what_generate_joins(toy: Toy) -> None:
    parts = list(toy.batches(range(5), batch=2))
    assert [len(part) for part in parts] == [2, 2, 1]
    assert torch.equal(torch.cat(parts), toy.generate(range(5), batch=2))


def test_trajectories_show_every_step(toy: Toy) -> None:
    walks = [list(walk) for walk in toy.trajectories(range(3), batch=2, steps=4)]
    assert [len(walk) for walk in walks] == [4, 4]
    assert torch.equal(torch.cat([walk[-1] for walk in walks]), toy.generate(range(3), batch=2, steps=4))
    assert not torch.equal(walks[0][0], walks[0][1]), "earlier steps are not overwritten by later ones"


def test_the_global_stream_does_not_matter(toy: Toy) -> None:
    torch.manual_seed(1)
    before, first = torch.get_rng_state(), toy.generate(range(3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(toy.generate(range(3)), first)


# -- noise= ----------------------------------------------------------------------------------------------------------


def test_the_seeds_own_noise_given_by_hand_changes_nothing(toy: Toy) -> None:
    seeds = [4, 8, 15]
    latents = Noise(seeds).normal(*toy.shape)
    kept = latents.clone()
    assert torch.equal(toy.generate(seeds, noise=latents, batch=2), toy.generate(seeds, batch=2))
    assert torch.equal(latents, kept)


def test_noise_alone_takes_seeds_from_0(toy: Toy) -> None:
    latents = torch.full((3, *toy.shape), 0.5)
    assert torch.equal(toy.generate(noise=latents), toy.generate([0, 1, 2], noise=latents))
    assert not torch.equal(toy.generate(noise=latents), toy.generate([0, 1, 2]))


def test_noise_that_does_not_fit_is_refused(toy: Toy) -> None:
    with pytest.raises(OptionError, match="2 rows for 3 seeds"):
        toy.generate([0, 1, 2], noise=torch.zeros(2, *toy.shape))
    with pytest.raises(OptionError, match=r"needs \(2, 1, 9, 7\)"):
        toy.generate([0, 1], noise=torch.zeros(2, 1, 7, 9))


# -- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels", [1, "1", "Sneaker", "sneaker", "SNEAKER", [1, 1], ["Sneaker", "1"], ("sneaker", 1)], ids=str
)
def test_labels_by_number_and_name(toy: Toy, labels: Any) -> None:
    assert torch.equal(toy.generate([0, 1], labels=labels), toy.generate([0, 1], labels=[1, 1]))


@pytest.mark.parametrize("labels", [np.array([1, 2]), torch.tensor([1, 2]), range(1, 3)], ids=repr)
def test_labels_from_other_libraries(toy: Toy, labels: Any) -> None:
    assert torch.equal(toy.generate([0, 1], labels=labels), toy.generate([0, 1], labels=[1, 2]))


def test_a_name_goes_before_a_number(toy: Toy) -> None:
    assert torch.equal(toy.generate(labels="7"), toy.generate(labels=3)), "class 3 is called 7"


def test_a_model_without_names_knows_numbers() -> None:
    toy = make(named=False)
    assert toy.classes == ("0", "1", "2", "3")
    assert torch.equal(toy.generate(labels="2"), toy.generate(labels=2))


def test_more_labels_than_any_settings_file_may_hold(toy: Toy) -> None:
    seeds = range(5000)
    noise = Noise(seeds)
    wanted = toy.options(labels=[i % 4 for i in seeds])
    assert toy.label_numbers(wanted.labels, noise) == tuple(i % 4 for i in seeds)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("Sneakers", "did you mean 'Sneaker'"),
        ("ankle bot", "did you mean 'Ankle boot'"),
        ("hat", "known: 7, Ankle boot, Sandal, Sneaker"),
        (4, "0 to 3"),
        (-1, "0 to 3"),
        ("4", "0 to 3"),
        ([0, 1, 2], "3 labels for 2 seeds"),
        ([], "0 labels for 2 seeds"),
        (1.5, "labels"),
        (True, "labels"),
        ([None, 1], "labels"),
        ({"a": 1}, "labels"),
    ],
)
def test_wrong_labels_say_what_is_right(toy: Toy, labels: Any, message: str) -> None:
    with pytest.raises(GenzooError, match=message) as caught:
        toy.generate([0, 1], labels=labels)
    assert "\n" not in str(caught.value)


def test_an_unconditional_model_takes_no_labels() -> None:
    toy = make(classes=0)
    assert toy.generate([0, 1]).shape == (2, 1, 9, 7)
    with pytest.raises(OptionError, match="leave labels out"):
        toy.generate([0, 1], labels=1)


# -- options and other mistakes --------------------------------------------------------------------------------------


def test_the_call_overrides_the_card_and_the_card_the_defaults() -> None:
    toy = make(steps=5)
    assert toy.options().steps == 5
    assert toy.options(steps=2).steps == 2
    assert toy.options().strength == 1.0
    assert make(named=False).options().steps == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stepz": 3}, "did you mean 'steps'"),
        ({"strenght": 3}, "did you mean 'strength'"),
        ({"scheduler": "ddim"}, "known: labels, steps, strength"),
        ({"steps": "3"}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"strength": float("nan")}, "strength"),
        ({"strength": "much", "steps": None}, "steps.*strength"),
    ],
)
def test_wrong_options_say_what_is_right(toy: Toy, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        toy.generate(**options)
    assert "\n" not in str(caught.value)
    assert "toy.test" in str(caught.value)
    assert toy.rows == []


@pytest.mark.parametrize(
    "seeds", [[], range(0), [-1], [2**32], 2**32, [True], True, 1.5, [1.5], "12", [None]], ids=repr
)
def test_wrong_seeds_are_refused(toy: Toy, seeds: Any) -> None:
    with pytest.raises(OptionError, match="seed"):
        toy.generate(seeds)
    assert toy.rows == []


@pytest.mark.parametrize("batch", [0, -1, 2.0, "4", True], ids=repr)
def test_wrong_batches_are_refused(toy: Toy, batch: Any) -> None:
    with pytest.raises(OptionError, match="batch"):
        toy.generate([0], batch=batch)


# -- modes -----------------------------------------------------------------------------------------------------------


def test_training_mode_is_left_for_the_call_and_restored(toy: Toy) -> None:
    expected = toy.generate(range(4))
    toy.train()
    toy.layers[2].eval()
    modes = {name: m.training for name, m in toy.named_modules()}
    buffers = {name: b.clone() for name, b in toy.named_buffers()}
    toy.states.clear()
    assert torch.equal(toy.generate(range(4)), expected)
    assert {name: m.training for name, m in toy.named_modules()} == modes
    assert all(torch.equal(b, buffers[name]) for name, b in toy.named_buffers()), "batch statistics did not move"
    assert toy.states == [(False, False)] * 3, "in evaluation mode and without gradients at every step"


def test_modes_are_restored_between_two_steps_and_after_an_error(toy: Toy) -> None:
    toy.train()
    walk = next(iter(toy.trajectories([0])))
    next(walk)
    assert toy.training
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    walk.close()
    toy.last = nn.Conv2d(3, 1, 1)
    with pytest.raises(RuntimeError):
        toy.generate([0])
    assert all(m.training for m in toy.modules())


def test_evaluating_keeps_each_modules_own_mode() -> None:
    net = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(2), nn.Sequential(nn.Dropout())).train()
    net[1].eval()

    def fail() -> None:
        with evaluating(net):
            assert not any(m.training for m in net.modules())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [m.training for m in net.modules()] == [True, True, False, True, True]


def test_one_pass_is_one_evaluation(toy: Toy) -> None:
    assert toy.nfe(toy.options()) == 1
    assert toy.device == torch.device("cpu")
    assert toy.dtype == torch.float32
    assert toy.bfloat16().dtype == torch.bfloat16
