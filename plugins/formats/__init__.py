"""Layouts of weights found in the wild."""

from genzoo.hookspecs import hookimpl
from genzoo.registry import Registrar


@hookimpl
def register(zoo: Registrar) -> None:
    zoo.format("genzoo", "genzoo_plugins.formats.own:Own")
    zoo.format("diffusers", "genzoo_plugins.formats.diffusers:DiffusersUNet")
    zoo.format("stable-diffusion", "genzoo_plugins.formats.stable_diffusion:StableDiffusion")
    zoo.format("guided-diffusion", "genzoo_plugins.formats.guided:Guided")
    zoo.format("dcgan-script", "genzoo_plugins.formats.dcgan:Script")
    zoo.format("dcgan-gan-zoo", "genzoo_plugins.formats.dcgan:Zoo")
