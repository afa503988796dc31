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


def test_a_weaker_card_guides_the_one_it_names_and_is_compared_only_where_it_is_asked_for() -> None:
    from genzoo.comparison import fitting_models

    zoo = default_zoo()
    weak = next(card for card in zoo.cards() if card.guides)
    assert weak.guides == "ddpm.fashion-mnist"
    assert weak.name not in fitting_models(zoo, "fashion-mnist")
    model = zoo.load(weak.guides)
    options = {"labels": [3, 8], "steps": 3, "scheduler": "ddim:spacing=trailing"}
    strong, away = (
        model.generate(range(2), guidance=f"autoguidance:model={weak.name},scale={scale}", **options)
        for scale in (1, 1.5)
    )
    assert torch.equal(strong, model.generate(range(2), guidance=1.0, **options))
    # One step from the same noise is linear in x_0: away from the weaker model by half of what is between them.
    options["steps"] = 1
    one, other, led = (
        made.generate(range(2), guidance=guidance, **options)
        for made, guidance in (
            (model, 1.0),
            (zoo.load(weak.name), 1.0),
            (model, f"autoguidance:model={weak.name},scale=1.5"),
        )
    )
    assert torch.isfinite(away).all()
    inside = (led.abs() < 1) & (one.abs() < 1) & (other.abs() < 1)
    assert inside.float().mean() > 0.3
    torch.testing.assert_close(led[inside], (one + (one - other) / 2)[inside], atol=2e-4, rtol=0)


def test_dcgan_makes_ten_kinds_of_pictures() -> None:
    fake, _ = seen("dcgan.fashion-mnist", 200)
    assert default_zoo().make("metric", "label-accuracy")(fake, fake).value >= 60
    assert len(set(fake.logits.argmax(1).tolist())) >= 8


@pytest.mark.parametrize("name", [card.name for card in default_zoo().cards("*.fashion-mnist*")])
def test_a_card_says_how_it_was_made(name: str) -> None:
    """Data, seed, steps, time, a committed recipe that says the same, and results with their settings."""
    from genzoo.train import read_recipe

    zoo = default_zoo()
    card = zoo.card(name)
    assert card.training is not None
    recipe = read_recipe(zoo.root(name) / card.training.recipe)
    made = card.training
    assert (recipe.seed, recipe.steps, recipe.batch) == (made.seed, made.steps, made.batch)
    assert (recipe.name, recipe.licence) == (card.name, card.licence)
    assert recipe.data.name == card.data
    read = functools.partial(zoo.find("generator", card.generator).Config.model_validate, strict=False)
    assert read(recipe.settings["model"]) == read(card.config)
    assert card.results
    for result in card.results:
        assert result.n >= 1000
        assert result.extractor
        assert result.command.startswith("genzoo compare")
