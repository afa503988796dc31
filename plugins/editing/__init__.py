"""Editing: image to image, inpainting, inversion."""

from genzoo.hookspecs import hookimpl
from genzoo.registry import Registrar


@hookimpl
def register(zoo: Registrar) -> None:
    zoo.editor("sdedit", "genzoo_plugins.editing.editors:SDEdit")
    zoo.editor("repaint", "genzoo_plugins.editing.editors:RePaint")
    zoo.editor("inversion", "genzoo_plugins.editing.editors:Inversion")
