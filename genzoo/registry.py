"""The zoo: plugins -> names -> classes and cards. Light: never imports torch itself, and pydantic only for a card.

Every plugin is called by itself and its registrations are taken together or not at all, so that a broken plugin is
named, skipped and shown, and never stops the others.
"""

from __future__ import annotations

import fnmatch
import functools
import importlib
import importlib.metadata
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy

from genzoo import hookspecs
from genzoo.errors import CardError, GenzooError, OptionError, UnknownName, cause, explain, nearest

if TYPE_CHECKING:
    import torch

    from genzoo.cards import Card
    from genzoo.generator import Generator

GROUP = "genzoo"

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


#: The hooks of genzoo/hookspecs.py.
HOOKS = ("register", "commands")

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,79}")

#: A name of two or more parts, as a model's.
_DOTTED = re.compile(r"[a-z0-9][a-z0-9-]*(\.[a-z0-9][a-z0-9-]*)+")


class PluginError(GenzooError):
    """A plugin that cannot do what it registered."""


class Plugin(NamedTuple):
    """An installed plugin.

    Attributes:
        name: its entry point's name.
        package, version: the distribution it came with.
        root: the folder of its module, where its weights and recipes lie.
        brings: what it registered, as ("generator", "ddpm").
    """

    name: str
    package: str
    version: str
    root: Path
    brings: tuple[tuple[str, str], ...] = ()


class Broken(NamedTuple):
    """A plugin that was skipped, and why."""

    name: str
    package: str
    version: str
    cause: str


class Entry(NamedTuple):
    """One registered class: "module:Class" or the class itself, and who brought it."""

    target: str | type
    plugin: Plugin


class Shelved(NamedTuple):
    """A card with the folder that its files lie in."""

    card: Card
    root: Path


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


class Zoo:
    """Names -> classes and cards.

    ``Zoo.discover()`` is the zoo of everything that is installed; ``Zoo()`` is empty, and ``add`` fills it.

    Attributes:
        plugins: those that work, by name.
        entries: (kind, name) -> class.
        presets: recipe files by name.
    """

    def __init__(self) -> None:
        self.plugins: dict[str, Plugin] = {}
        self.entries: dict[tuple[str, str], Entry] = {}
        self.presets: dict[str, Path] = {}
        self._broken: dict[str, Broken] = {}
        self._shelf: dict[str, Shelved] = {}
        self._catalogue_waits = False
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)

    def __repr__(self) -> str:
        return f"Zoo({len(self.plugins)} plugins, {len(self.shelf)} models)"

    def __deepcopy__(self, memo: Any) -> Zoo:
        """The zoo itself: a copy of a model, as for an average of its weights, looks names up where the model does."""
        return self

    @property
    def shelf(self) -> dict[str, Shelved]:
        """Card name -> card and folder."""
        self._hang_catalogue()
        return self._shelf

    @property
    def broken(self) -> dict[str, Broken]:
        """The plugins that were skipped, by name, with the cause."""
        self._hang_catalogue()
        return self._broken

    # -- filling -----------------------------------------------------------------------------------------------------

    @classmethod
    def discover(cls) -> Zoo:
        """Every plugin that is installed, and the built-in catalogue."""
        zoo = cls()
        # Built-ins first, so that a newcomer that takes one of their names is the one that is refused.
        for found in sorted(_installed(), key=lambda f: (f.package != "genzoo", f.package, f.name)):
            zoo.add(found.load, name=found.name, package=found.package, version=found.version)
        zoo._catalogue_waits = True
        return zoo

    def add(self, load: Callable[[], Any], *, name: str, package: str = "local", version: str = "0") -> bool:
        """Take a plugin in; True if it works, else it stands in ``broken``.

        Args:
            load: returns the plugin: a module or object with ``@hookimpl`` functions.
            name, package, version: how it is named to people.
        """
        try:
            if name in self.plugins or name in self.broken:
                raise PluginError(f"a plugin named {name!r} is here already")
            self._take(load(), name, package, version)
        except (Exception, SystemExit) as error:
            # SystemExit is no Exception: a plugin that calls sys.exit() at import would end the program.
            self._break(Plugin(name, package, version, Path()), error)
            return False
        return True

    def _break(self, plugin: Plugin, error: BaseException) -> None:
        key, count = plugin.name, 1
        while key in self.broken or key in self.plugins:
            count += 1
            key = f"{plugin.name} ({plugin.package}{'' if count == 2 else f', {count - 1}'})"
        self.broken[key] = Broken(key, plugin.package, plugin.version, cause(error))

    def _take(self, module: Any, name: str, package: str, version: str) -> None:
        plugin = Plugin(name, package, version, _folder(module))
        registrar = Registrar(self, plugin)
        known = self._manager.get_plugins()
        if module in known:
            raise PluginError(f"its module is that of plugin {self._manager.get_name(module)!r}")
        try:
            # Inside the block: where it finds a fault, pluggy keeps the hooks before it.
            self._manager.register(module, name)
            self._check_hooks(module)
            result = self._manager.subset_hook_caller("register", known)(zoo=registrar)
            if any(item is not None for item in result):
                raise PluginError(f"register(zoo) must return nothing, not {type(result[0]).__name__}")
        except BaseException:
            if self._manager.is_registered(module):
                self._manager.unregister(module)
            raise
        named = (*(("preset", preset) for preset in registrar.presets), *(("card", card) for card in registrar.cards))
        brings = (*registrar.entries, *named)
        plugin = plugin._replace(brings=tuple(brings))
        self.plugins[name] = plugin
        self.entries.update({key: Entry(entry.target, plugin) for key, entry in registrar.entries.items()})
        self.presets.update(registrar.presets)
        self.shelf.update(registrar.cards)

    def _check_hooks(self, module: Any) -> None:
        """What pluggy would pass over in silence: a hook that it does not know, and one that is not marked."""
        callers = {caller.name: caller for caller in self._manager.get_hookcallers(module) or ()}
        for name, caller in sorted(callers.items()):
            if not caller.has_spec():
                close = nearest(name, HOOKS)
                advice = f"did you mean {close!r}?" if close else f"known: {', '.join(HOOKS)}"
                raise PluginError(f"unknown hook {name!r}; {advice}")
            for impl in caller.get_hookimpls():
                if impl.plugin is module and (impl.wrapper or impl.hookwrapper):
                    raise PluginError(f"hook {name!r} is a wrapper; write it without wrapper=True")
        for name in HOOKS:
            if name not in callers and inspect.isroutine(getattr(module, name, None)):
                raise PluginError(f"{name} is not marked as a hook: write @genzoo.hookimpl above it")
        if not callers:
            names = [name for name in vars(module) if not name.startswith("_")] if hasattr(module, "__dict__") else []
            close = nearest("register", names, cutoff=0.75) or nearest("commands", names, cutoff=0.75)
            advice = f"rename {close!r} and mark it" if close else "mark register(zoo)"
            raise PluginError(f"it implements no hook: {advice} with @genzoo.hookimpl")

    def _hang_catalogue(self) -> None:
        """The built-in cards: registry.yaml, whose files lie with the plugin that brings the card's generator.

        Read when a card is first asked for: a command that needs none, as ``--help``, starts sooner.
        """
        if not self._catalogue_waits:
            return
        self._catalogue_waits = False
        from genzoo.cards import read_catalogue

        path = catalogue_path()
        try:
            for card in read_catalogue(path):
                entry = self.entries.get(("generator", card.generator))
                root = entry.plugin.root if entry else path.parent
                if card.name not in self._shelf:
                    self._shelf[card.name] = Shelved(card, root)
        except CardError as error:
            self._break(Plugin("registry.yaml", "genzoo", _version("genzoo"), path), error)

    # -- asking ------------------------------------------------------------------------------------------------------

    def names(self, kind: str) -> list[str]:
        """Registered names of one kind, sorted."""
        return sorted(name for k, name in self.entries if k == kind)

    def card(self, name: str) -> Card:
        """The card of that name; raises UnknownName with the nearest."""
        return self._shelved(name).card

    def root(self, name: str) -> Path:
        """The folder that a card's files lie in."""
        return self._shelved(name).root

    def _shelved(self, name: str) -> Shelved:
        if name not in self.shelf:
            raise UnknownName("model", name, self.shelf, self._hint())
        return self.shelf[name]

    def cards(self, pattern: str = "*") -> list[Card]:
        """Cards whose names match a glob, sorted by name."""
        return [self.shelf[name].card for name in sorted(self.shelf) if fnmatch.fnmatchcase(name, pattern)]

    def _hint(self) -> str:
        return f"({len(self.broken)} broken; see genzoo plugins)" if self.broken else ""

    def find(self, kind: str, name: str) -> type[Any]:
        """The class registered under a name.

        Raises:
            UnknownName: with the nearest name.
            PluginError: its module cannot be imported, or holds something else; names plugin and version.
        """
        entry = self.entries.get((kind, name))
        if entry is None:
            raise UnknownName(kind, name, self.names(kind), self._hint())
        who = f"plugin {entry.plugin.name!r} ({entry.plugin.package} {entry.plugin.version})"
        try:
            found = _resolve(entry.target)
            base = _resolve(KINDS[kind])
        except (Exception, SystemExit) as error:
            raise PluginError(f"{who}: {kind} {name!r} cannot be loaded: {cause(error)}") from error
        if not (isinstance(found, type) and issubclass(found, base)):
            raise PluginError(f"{who}: {kind} {name!r} is not a subclass of genzoo.{base.__name__}")
        if inspect.isabstract(found):
            missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
            raise PluginError(f"{who}: {kind} {name!r} does not implement {missing}")
        return found

    def make(self, kind: str, spec: str) -> Any:
        """An object from ``name`` or ``name:key=value,key=value``, as ``ddim:eta=0.5,spacing=trailing``."""
        from pydantic import ValidationError

        from genzoo.documents import scalar

        name, _, rest = spec.partition(":")
        given: dict[str, Any] = {}
        for part in filter(None, rest.split(",")):
            key, equals, value = part.partition("=")
            key = key.strip()
            if not equals or not key:
                raise OptionError(f"{kind} {spec!r}: write options as name:key=value,key=value")
            if key in given:
                raise OptionError(f"{kind} {spec!r}: {key} stands there twice")
            given[key] = scalar(value.strip())
        name = name.strip()
        found = self.find(kind, name)
        fields = getattr(found, "model_fields", None)
        known = ", ".join(inspect.signature(found).parameters if fields is None else fields) or "none"
        try:
            return found(**given)
        except ValidationError as error:
            raise OptionError(f"{explain(error, f'{kind} {name}', found)}; its options: {known}") from None
        except TypeError as error:
            raise OptionError(f"{kind} {name}: {error}; its options: {known}") from None

    def load(
        self,
        name: str,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        allow_nonfinite: bool = False,
    ) -> Generator:
        """The model of that name with its verified weights, in evaluation mode.

        Args:
            name: a card's name, as ``ddpm.fashion-mnist``; a folder or file; or
                ``hf:owner/repo[@revision][/subfolder]``.
            device: "cpu", "cuda", ...; the CPU by default.
            dtype: of the weights, as torch.bfloat16 or "bfloat16"; float32 by default.
            revision: a branch, tag or commit on the Hub; by default the main branch, or what was loaded before.
            cache_dir: where downloads are kept; by default the Hub's own cache.
            local_files_only: use what was downloaded before, and no network.
            token: for private and gated repositories; by default the one that ``hf auth login`` stored.
            allow_nonfinite: take weights that hold NaN or infinity.

        Raises:
            UnknownName: no such card; says the nearest.
            WeightsError: missing, truncated, changed or ill-fitting weights, or a layout that is not known.
            HubError: a repository that cannot be reached or read; says why.
        """
        from genzoo.weights import load_generator  # the one step from the light modules to torch

        return load_generator(
            self,
            name,
            device=device,
            dtype=dtype,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=token,
            allow_nonfinite=allow_nonfinite,
        )

    def extend_cli(self, cli: Any) -> None:
        """Let every working plugin add its commands; one that fails is shown by ``genzoo plugins``."""
        import click

        for impl in list(self._manager.hook.commands.get_hookimpls()):
            plugin = self.plugins[impl.plugin_name]
            apart = click.Group()
            try:
                impl.function(*({"cli": apart}[argument] for argument in impl.argnames))
                taken = sorted(set(apart.commands) & set(cli.list_commands(click.Context(cli))))
                if taken:
                    raise PluginError(f"command {taken[0]!r} exists already; choose another name")
            except (Exception, SystemExit) as error:
                # What else it brings works, and stays.
                name = f"{plugin.name} commands"
                self.broken[name] = Broken(name, plugin.package, plugin.version, cause(error))
                continue
            for name, command in apart.commands.items():
                cli.add_command(command, name)


class _Installed(NamedTuple):
    """An entry point of this group."""

    name: str
    package: str
    version: str
    load: Callable[[], Any]


def _installed() -> Iterator[_Installed]:
    """Every entry point of this group, whatever state the other packages' metadata is in."""
    seen = set()
    for distribution in importlib.metadata.distributions():
        package = version = "unknown"
        try:
            # Most packages have none, and asking for the name of one of those means reading all that it says of itself.
            if f"[{GROUP}]" not in (distribution.read_text("entry_points.txt") or ""):
                continue
            about = distribution.metadata
            package, version = about["Name"] or package, about["Version"] or version
            points = distribution.entry_points.select(group=GROUP)
        except Exception as error:
            yield _Installed(package, package, version, functools.partial(_raise, error))
            continue
        # The first of a name on the path is the one that Python imports.
        normal = re.sub(r"[-_.]+", "-", package).lower()
        if normal not in seen:
            seen.add(normal)
            for point in points:
                yield _Installed(point.name, package, version, point.load)


def _raise(error: Exception) -> Any:
    raise error


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _folder(module: Any) -> Path:
    """The folder of a plugin's module, or of the class that a plugin object is of."""
    file = getattr(module, "__file__", None) or getattr(sys.modules.get(type(module).__module__), "__file__", None)
    return Path(file).parent if file else Path()


def _resolve(target: str | type) -> Any:
    if not isinstance(target, str):
        return target
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def catalogue_path() -> Path:
    """registry.yaml: inside an installed package, or at the top of a checkout."""
    home = Path(__file__).parent
    packaged = home / "registry.yaml"
    return packaged if packaged.exists() else home.parent / "registry.yaml"


@functools.cache
def default_zoo() -> Zoo:
    """The zoo of everything that is installed, made at first use."""
    return Zoo.discover()
