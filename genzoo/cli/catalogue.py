"""What is in the zoo: ``list``, ``show``, ``plugins``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genzoo.errors import printable
from genzoo.registry import KINDS, default_zoo

if TYPE_CHECKING:
    from genzoo.cards import Card, Measured
    from genzoo.registry import Zoo


@click.command("list")
@click.argument("pattern", default="*")
@click.option("--json", "as_json", is_flag=True, help="Whole cards, as JSON.")
def list_models(pattern: str, as_json: bool) -> None:
    """Models whose names match PATTERN, a glob as 'ddpm*'."""
    cards = default_zoo().cards(pattern)
    if as_json:
        click.echo(json.dumps([card.model_dump(mode="json") for card in cards], indent=1))
        return
    if not cards:
        click.echo(f"no model matches {pattern!r}; see genzoo list", err=True)
        return
    width = max(len(card.name) for card in cards)
    size = max(len(_megabytes(card)) for card in cards)
    for card in cards:
        click.echo(f"{card.name:{width}}  {_megabytes(card):>{size}}  {card.summary}")


def _found(zoo: Zoo, name: str) -> tuple[Card, Path]:
    """A card and the folder of its files; torch is not imported for a name of the catalogue, or a misspelt one."""
    if name in zoo.shelf or not (":" in name or "/" in name or os.path.exists(name)):
        return zoo.card(name), zoo.root(name)
    from genzoo.weights import find_card

    return find_card(zoo, name)


def _megabytes(card: Card) -> str:
    return f"{card.weights.size / 1e6:.1f} MB" if card.weights else "-"


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="The card, as JSON.")
def show(name: str, as_json: bool) -> None:
    """The card of one model: what it is, how it was made, what it reaches.

    NAME is a name of the catalogue, a folder or file, or hf:owner/repo.
    """
    zoo = default_zoo()
    card, root = _found(zoo, name)
    if as_json:
        click.echo(card.model_dump_json(indent=1))
        return
    for label, value in _about(card, root):
        click.echo(f"{label + ':':<11}{printable(str(value))}")
    if card.results:
        click.echo("results:")
    for result in card.results:
        click.echo(f"  {_measured(result)}")
    for command in sorted({result.command for result in card.results}):
        click.echo(f"  measured by: {command}")


def _about(card: Card, root: Path) -> list[tuple[str, Any]]:
    """What a card says but for its results, each with a label; ``root`` is the folder of its files."""
    rows: list[tuple[str, Any]] = [
        ("name", card.name),
        ("summary", card.summary),
        ("generator", card.generator),
        ("images", " x ".join(map(str, card.shape)) + " (channels, height, width)"),
        ("classes", ", ".join(card.classes) or "none"),
        ("options", ", ".join(f"{key}={value}" for key, value in card.options.items()) or "the family's defaults"),
        ("data", card.data or "unknown"),
        *([("guides", card.guides)] if card.guides else []),
        ("licence", card.licence),
        ("paper", card.paper),
    ]
    if card.weights:
        rows += [
            ("weights", f"{root / card.weights.file} ({_megabytes(card)})"),
            ("sha256", card.weights.sha256),
        ]
    if card.training:
        made = card.training
        rows += [
            ("recipe", root / made.recipe),
            (
                "training",
                f"{made.steps} steps of {made.batch}, seed {made.seed}, {made.minutes:.0f} min on {made.hardware}",
            ),
            ("versions", ", ".join(f"{key} {value}" for key, value in made.versions.items())),
        ]
    return rows


def _measured(result: Measured) -> str:
    """A published number, with all that belongs to it."""
    known = result.low is not None and result.high is not None
    interval = f" ({result.low:.4g} to {result.high:.4g})" if known else ""
    through = f", {result.extractor}" if result.extractor else ""
    return f"{result.metric}: {result.value:.4g}{interval}, n = {result.n}{through}; {result.settings}"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def plugins(as_json: bool) -> None:
    """Installed plugins, what each brings, and those that are broken, with the cause."""
    zoo = default_zoo()
    if as_json:
        working = [
            {"name": p.name, "package": p.package, "version": p.version, "brings": [list(item) for item in p.brings]}
            for p in zoo.plugins.values()
        ]
        skipped = [b._asdict() for b in zoo.broken.values()]
        click.echo(json.dumps({"plugins": working, "broken": skipped}, indent=1))
        return
    for plugin in zoo.plugins.values():
        click.echo(f"{plugin.name} ({plugin.package} {plugin.version})")
        for kind in (*KINDS, "preset", "card"):
            names = [name for k, name in plugin.brings if k == kind]
            if names:
                click.echo(f"  {kind}: {', '.join(names)}")
    for broken in zoo.broken.values():
        click.echo(f"BROKEN {broken.name} ({broken.package} {broken.version}): {broken.cause}")


COMMANDS = (list_models, show, plugins)
