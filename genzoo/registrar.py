"""What a plugin brings: the names that it registers, checked and kept together. Light: never imports torch."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from genzoo.errors import CardError, cause, explain
from genzoo.plugins import Plugin, PluginError

if TYPE_CHECKING:
    from genzoo.cards import Card
    from genzoo.registry import Zoo

#: What can be registered by name, cards aside: kind -> the module and abstract class that it must subclass.
KINDS: Mapping[str, str] = {
    "generator": "genzoo.generator:Generator",
    "scheduler": "genzoo.scheduler:Scheduler",
    "guidance": "genzoo.guidance:Guidance",
    "editor": "genzoo.editing:Editor",
    "metric": "genzoo.metric:Metric",
    "extractor": "genzoo.metric:Extractor",
    "dataset": "genzoo.data:Dataset",
    "recipe": "genzoo.recipe:Recipe",
    "format": "genzoo.formats:Format",
    "source": "genzoo.sources:Source",
}

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,79}")

#: A name of two or more parts, as a model's.
_DOTTED = re.compile(r"[a-z0-9][a-z0-9-]*(\.[a-z0-9][a-z0-9-]*)+")


class Entry(NamedTuple):
    """One registered class: "module:Class" or the class itself, and who brought it."""

    target: str | type
    plugin: Plugin

    def load(self, kind: str, name: str) -> type[Any]:
        """The class, imported if need be, with its settings built; ``kind`` and ``name`` are those it stands under.

        Raises PluginError, which names plugin and version, where it cannot be loaded or is not what its kind asks for.
        """
        who = f"plugin {self.plugin.name!r} ({self.plugin.package} {self.plugin.version}): {kind} {name!r}"
        try:
            found, base = _resolve(self.target), _resolve(KINDS[kind])
            if isinstance(found, type):
                build_validators(found)
        except (Exception, SystemExit) as error:
            raise PluginError(f"{who} cannot be loaded: {cause(error)}") from error
        if not (isinstance(found, type) and issubclass(found, base)):
            raise PluginError(f"{who} is not a subclass of genzoo.{base.__name__}")
        if inspect.isabstract(found):
            missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
            raise PluginError(f"{who} does not implement {missing}")
        return found


class Shelved(NamedTuple):
    """A card with the folder that its files lie in."""

    card: Card
    root: Path


def _resolve(target: str | type) -> Any:
    if not isinstance(target, str):
        return target
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def build_validators(target: type) -> None:
    """Build what ``Frozen`` puts off until its first use, so that a fault of settings is found with their plugin.

    Args:
        target: a registered class, which may be settings itself or name some, as a generator does.

    Raises whatever pydantic meets in them.
    """
    for settings in (target, getattr(target, "Config", None), getattr(target, "Options", None)):
        # Known by what they can do: for a class that is none, as a format, pydantic is not imported.
        if isinstance(settings, type) and hasattr(settings, "model_rebuild"):
            settings.model_rebuild()


class Registrar:
    """What a plugin's ``register`` hook is given: one method for each kind of thing."""

    def __init__(self, zoo: Zoo, plugin: Plugin) -> None:
        self._zoo, self._plugin = zoo, plugin
        self.entries: dict[tuple[str, str], Entry] = {}
        self.cards: dict[str, Shelved] = {}
        self.presets: dict[str, Path] = {}

    def _add(self, kind: str, name: str, target: str | type) -> None:
        if not (isinstance(name, str) and _NAME.fullmatch(name)):
            raise PluginError(f"{kind} name {name!r}: use lower-case letters, digits and hyphens")
        if isinstance(target, str):
            module, _, attribute = target.partition(":")
            if not module or not attribute:
                raise PluginError(f"{kind} {name!r}: write its class as 'module:Class', not {target!r}")
        elif not isinstance(target, type):
            raise PluginError(f"{kind} {name!r}: give a class or 'module:Class', not {type(target).__name__}")
        else:
            build_validators(target)
        taken = self.entries.get((kind, name)) or self._zoo.entries.get((kind, name))
        if taken:
            raise PluginError(f"{kind} {name!r} is taken by plugin {taken.plugin.name!r}; choose another name")
        self.entries[kind, name] = Entry(target, self._plugin)

    def generator(self, name: str, target: str | type) -> None:
        """A model family: a subclass of ``genzoo.Generator``."""
        self._add("generator", name, target)

    def scheduler(self, name: str, target: str | type) -> None:
        """A numerical method: a subclass of ``genzoo.Scheduler``."""
        self._add("scheduler", name, target)

    def guidance(self, name: str, target: str | type) -> None:
        """A way of steering: a subclass of ``genzoo.Guidance``."""
        self._add("guidance", name, target)

    def editor(self, name: str, target: str | type) -> None:
        """A way to change images: a subclass of ``genzoo.Editor``."""
        self._add("editor", name, target)

    def metric(self, name: str, target: str | type) -> None:
        """A measurement: a subclass of ``genzoo.Metric``."""
        self._add("metric", name, target)

    def extractor(self, name: str, target: str | type) -> None:
        """Images -> features, for metrics: a subclass of ``genzoo.Extractor``."""
        self._add("extractor", name, target)

    def dataset(self, name: str, target: str | type) -> None:
        """A source of images: a subclass of ``genzoo.Dataset``."""
        self._add("dataset", name, target)

    def recipe(self, name: str, target: str | type) -> None:
        """How a family is trained: a subclass of ``genzoo.Recipe``."""
        self._add("recipe", name, target)

    def preset(self, name: str, path: str | Path) -> None:
        """A recipe file in the plugin's folder, short enough for ``genzoo stability`` to run it often."""
        if not (isinstance(name, str) and len(name) <= 120 and _DOTTED.fullmatch(name)):
            raise PluginError(f"preset name {name!r}: write family.tag in lower-case letters, digits and hyphens")
        if name in self.presets or name in self._zoo.presets:
            raise PluginError(f"preset {name!r} exists already; choose another name")
        if not (self._plugin.root / path).is_file():
            raise PluginError(f"preset {name!r}: {self._plugin.root / path} is not there")
        self.presets[name] = self._plugin.root / path

    def format(self, name: str, target: str | type) -> None:
        """A layout of weights: a subclass of ``genzoo.Format``."""
        self._add("format", name, target)

    def source(self, name: str, target: str | type) -> None:
        """Models under names ``name:...`` that another library runs: a subclass of ``genzoo.sources.Source``."""
        self._add("source", name, target)

    def card(self, card: Card | Mapping[str, Any]) -> None:
        """One model. Its files are looked for in the plugin's own folder."""
        from pydantic import ValidationError

        from genzoo.cards import Card

        try:
            checked = card if isinstance(card, Card) else Card.model_validate(dict(card))
        except ValidationError as error:
            raise CardError(explain(error, "card", Card)) from None
        if checked.name in self.cards or checked.name in self._zoo.shelf:
            raise CardError(f"card {checked.name!r} exists already; choose another name")
        self.cards[checked.name] = Shelved(checked, self._plugin.root)

    def catalogue(self, path: str | Path) -> None:
        """All cards of a registry.yaml that lies in the plugin's folder."""
        from genzoo.cards import read_catalogue

        for card in read_catalogue(self._plugin.root / path):
            self.card(card)
