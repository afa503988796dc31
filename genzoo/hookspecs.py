"""The hooks of a plugin, whole: implement one or both in a module and name it in the entry-point group ``genzoo``.

from genzoo import hookimpl

@hookimpl
def register(zoo):
    zoo.generator("my-model", "my_package.model:MyModel")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import click

    from genzoo.registry import Registrar

hookspec = pluggy.HookspecMarker("genzoo")
hookimpl = pluggy.HookimplMarker("genzoo")


@hookspec
def register(zoo: Registrar) -> None:
    """Say what the plugin brings. Name classes as "module:Class", so that nothing is imported before it is used."""


@hookspec
def commands(cli: click.Group) -> None:
    """Add commands to the ``genzoo`` command line."""
