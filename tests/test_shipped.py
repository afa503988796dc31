"""The shipped weights keep what their cards promise."""

from __future__ import annotations

import functools

import pytest
import torch

from genzoo import evaluate
from genzoo.metric import Features
from genzoo.registry import default_zoo


def seen(name: str, n: int, **options):  # type: ignore[no-untyped-def]
    """(features of n images with balanced labels, the extractor)."""
    zoo = default_zoo()
    model = zoo.load(name)
    labels = [i % 10 for i in range(n)]
    images = model.generate(range(n), labels=labels, **options)
    extractor = zoo.make("extractor", "fashion-classifier")
    found = extractor.over(images)
    return Features(found.vectors, found.logits, torch.tensor(labels)), extractor


def test_ddpm_obeys_its_label_at_guidance_2() -> None:
    fake, _ = seen("ddpm.fashion-mnist", 200, steps=20, guidance=2.0, scheduler="ddim")
    accuracy = default_zoo().make("metric", "label-accuracy")(fake, fake)
    assert accuracy.value >= 95, "97 % in the long run; 200 pictures spread by about 1.2 points"


@pytest.mark.slow
def test_ddpm_keeps_its_label_accuracy_and_distance() -> None:
    """At guidance 2: 97 % recognised. At guidance 1: at most 7 times the distance of 2,000 training images."""
    zoo = default_zoo()
    fake, extractor = seen("ddpm.fashion-mnist", 2000, steps=20, guidance=2.0)
    assert zoo.make("metric", "label-accuracy")(fake, fake).value >= 97
    plain, _ = seen("ddpm.fashion-mnist", 2000, steps=20, guidance=1.0)
    reference = evaluate.reference_of(zoo, extractor, "fashion-mnist", "test")
    train = evaluate.reference_of(zoo, extractor, "fashion-mnist", "train")
    frechet = zoo.make("metric", "frechet")
    blocks = [frechet.value(train[i : i + 2000].vectors, reference.vectors) for i in range(0, 10_000, 2000)]
    assert frechet.value(plain.vectors, reference.vectors) <= 7 * sum(blocks) / len(blocks)


def test_dcgan_makes_ten_kinds_of_pictures() -> None:
    fake, _ = seen("dcgan.fashion-mnist", 200)
    assert default_zoo().make("metric", "label-accuracy")(fake, fake).value >= 60
    assert len(set(fake.logits.argmax(1).tolist())) >= 8


@pytest.mark.parametrize("name", [card.name for card in default_zoo().cards("*.fashion-mnist")])
def test_a_card_says_how_it_was_made(name: str) -> None:
    """Data, seed, steps, time, a committed recipe that says the same, and results with their settings."""
    from genzoo.train import read_recipe

    zoo = default_zoo()
    card = zoo.card(name)
    assert card.training is not None
    recipe = read_recipe(zoo.root(name) / card.training.recipe)
    made = card.training
    assert (recipe.seed, recipe.steps, recipe.batch) == (made.seed, made.steps, made.batch)
    assert recipe.name == card.name
    assert recipe.data.name == card.data
    read = functools.partial(zoo.find("generator", card.generator).Config.model_validate, strict=False)
    assert read(recipe.settings["model"]) == read(card.config)
    assert card.results
    for result in card.results:
        assert result.n >= 1000
        assert result.extractor
        assert result.command.startswith("genzoo compare")
