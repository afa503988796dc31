"""diffusers beside genzoo: ``diffusers:PATH_OR_REPO`` is a pipeline of that library, measured like any other model."""

from genzoo.hookspecs import hookimpl
from genzoo.registry import Registrar


@hookimpl
def register(zoo: Registrar) -> None:
    zoo.generator("diffusers-pipeline", "genzoo_plugins.diffusers_peer.model:Pipeline")
    zoo.source("diffusers", "genzoo_plugins.diffusers_peer.source:Diffusers")
