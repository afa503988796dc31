"""The hooks of plugins: each plugin's are checked and called by themselves. Light: never imports torch."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pluggy

from genzoo import hookspecs
from genzoo.errors import nearest
from genzoo.plugins import GROUP, PluginError

if TYPE_CHECKING:
    import click

    from genzoo.registrar import Registrar

#: Those of genzoo/hookspecs.py.
HOOKS = ("register", "commands")


class _Manager(pluggy.PluginManager):
    """Looks at the functions of a module alone: pluggy takes most of its time for the other names."""

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> pluggy.HookimplOpts | None:
        if isinstance(plugin, ModuleType) and not inspect.isroutine(vars(plugin).get(name)):
            return None
        return super().parse_hookimpl_opts(plugin, name)


class Hooks:
    """The modules whose hooks are known."""

    def __init__(self) -> None:
        self._manager = _Manager(GROUP)
        self._manager.add_hookspecs(hookspecs)

    def take(self, module: Any, name: str, registrar: Registrar) -> None:
        """Let a module's ``register`` hook speak; where anything is wrong with the module, it is as if it never had.

        Args:
            module: the plugin: a module or object with ``@hookimpl`` functions.
            name: how it is named to people.
            registrar: what its hook is given.
        """
        known = self._manager.get_plugins()
        if module in known:
            raise PluginError(f"its module is that of plugin {self._manager.get_name(module)!r}")
        try:
            # Inside the block: where it finds a fault, pluggy keeps the hooks before it.
            self._manager.register(module, name)
            self._check(module)
            result = self._manager.subset_hook_caller("register", known)(zoo=registrar)
            if any(item is not None for item in result):
                raise PluginError(f"register(zoo) must return nothing, not {type(result[0]).__name__}")
        except BaseException:
            if self._manager.is_registered(module):
                self._manager.unregister(module)
            raise

    def commands(self) -> Iterator[tuple[str, Callable[[click.Group], None]]]:
        """The ``commands`` hook of every module that has one, with the plugin's name."""
        for impl in list(self._manager.hook.commands.get_hookimpls()):
            yield impl.plugin_name, functools.partial(_add_commands, impl)

    def _check(self, module: Any) -> None:
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


def _add_commands(impl: pluggy.HookImpl, cli: click.Group) -> None:
    """Call a ``commands`` hook, which may leave its argument out."""
    impl.function(*({"cli": cli}[argument] for argument in impl.argnames))
