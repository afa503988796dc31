"""The zoo: plugins -> names -> classes and cards. Light: never imports torch itself, and pydantic only for a card.

Every plugin is called by itself and its registrations are taken together or not at all, so that a broken plugin is
named, skipped and shown, and never stops the others.
"""

from __future__ import annotations

import fnmatch
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.errors import CardError, GenzooError, OptionError, UnknownName, cause, explain
from genzoo.hooks import HOOKS, Hooks
from genzoo.plugins import Broken, Plugin, PluginError, folder_of, installed, version_of
from genzoo.registrar import KINDS, Entry, Registrar, Shelved

if TYPE_CHECKING:
    import torch

    from genzoo.cards import Card
    from genzoo.generator import Generator

__all__ = [
    "HOOKS",
    "KINDS",
    "Broken",
    "Entry",
    "Plugin",
    "PluginError",
    "Registrar",
    "Shelved",
    "Zoo",
    "default_zoo",
]


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
        self._hooks = Hooks()

    def __repr__(self) -> str:
        return f"Zoo({len(self.plugins)} plugins, {len(self.shelf)} models)"

    def __deepcopy__(self, memo: Any) -> Zoo:
        """The zoo itself: a copy of a model, as for an average of its weights, looks names up where the model does."""
        return self

    def __copy__(self) -> Zoo:
        return self

    def __reduce__(self) -> tuple[Callable[[], Zoo], tuple[()]]:
        """What is installed in the other process: a model that goes there looks names up in that."""
        return default_zoo, ()

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
        for found in sorted(installed(), key=lambda f: (f.package != "genzoo", f.package, f.name)):
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
        plugin = Plugin(name, package, version, folder_of(module))
        registrar = Registrar(self, plugin)
        self._hooks.take(module, name, registrar)
        named = (*(("preset", preset) for preset in registrar.presets), *(("card", card) for card in registrar.cards))
        brings = (*registrar.entries, *named)
        plugin = plugin._replace(brings=tuple(brings))
        self.plugins[name] = plugin
        self.entries.update({key: Entry(entry.target, plugin) for key, entry in registrar.entries.items()})
        self.presets.update(registrar.presets)
        self.shelf.update(registrar.cards)

    def _hang_catalogue(self) -> None:
        """The built-in cards: registry.yaml, whose files lie with the plugin that brings the card's generator.

        Read when a card is first asked for: a command that needs none, as ``--help``, starts sooner.
        """
        if not self._catalogue_waits:
            return
        self._catalogue_waits = False
        from genzoo.cards import catalogue_path, read_catalogue

        path = catalogue_path()
        try:
            for card in read_catalogue(path):
                entry = self.entries.get(("generator", card.generator))
                root = entry.plugin.root if entry else path.parent
                if card.name not in self._shelf:
                    self._shelf[card.name] = Shelved(card, root)
        except CardError as error:
            self._break(Plugin("registry.yaml", "genzoo", version_of("genzoo"), path), error)
        self._drop_misguided()

    def _drop_misguided(self) -> None:
        """Take down each card that is to guide one that is not here, or is not like it; the other cards stay.

        Only now is every card here that a plugin's may name.
        """
        for card, root in [*self._shelf.values()]:
            try:
                if card.guides is not None:
                    card.check_guided(self.card(card.guides))
            except GenzooError as error:
                del self._shelf[card.name]
                who = next((p for p in self.plugins.values() if ("card", card.name) in p.brings), None)
                who = who or Plugin("registry.yaml", "genzoo", version_of("genzoo"), root)
                self._break(who._replace(name=f"card {card.name}"), error)

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

    def contenders(self) -> list[Card]:
        """The cards that exist for their own sake, sorted by name; not those that only guide others."""
        return [card for card in self.cards() if card.guides is None]

    def _hint(self) -> str:
        return f"({len(self.broken)} broken; see genzoo plugins)" if self.broken else ""

    def find(self, kind: str, name: str) -> type[Any]:
        """The class registered under a name.

        Raises:
            UnknownName: with the nearest name.
            PluginError: its module cannot be imported, holds something else, or settings that cannot be built; names
                plugin and version.
        """
        entry = self.entries.get((kind, name))
        if entry is None:
            raise UnknownName(kind, name, self.names(kind), self._hint())
        return entry.load(kind, name)

    def make(self, kind: str, spec: str) -> Any:
        """An object from ``name`` or ``name:key=value,key=value``, as ``ddim:eta=0.5,spacing=trailing``."""
        from pydantic import ValidationError

        from genzoo.spec import parse

        name, given = parse(spec, kind)
        found = self.find(kind, name)
        fields = getattr(found, "model_fields", None)
        known = ", ".join(inspect.signature(found).parameters if fields is None else fields) or "none"
        try:
            # Settings may name further things, which are looked up here too.
            return found(**given) if fields is None else found.model_validate(given, context=self)
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

        for who, add_to in self._hooks.commands():
            plugin, apart = self.plugins[who], click.Group()
            try:
                add_to(apart)
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


@functools.cache
def default_zoo() -> Zoo:
    """The zoo of everything that is installed, made at first use."""
    return Zoo.discover()
