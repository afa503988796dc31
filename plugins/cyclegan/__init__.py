"""CycleGAN and pix2pix: networks that turn images into images."""

from genzoo.hookspecs import hookimpl
from genzoo.registry import Registrar


@hookimpl
def register(zoo: Registrar) -> None:
    zoo.generator("cyclegan", "genzoo_plugins.cyclegan.model:CycleGAN")
    zoo.format("cyclegan", "genzoo_plugins.cyclegan.layout:Junyanz")
