"""DCGAN: the convolutional GAN that made the family practical."""

from genzoo.hookspecs import hookimpl
from genzoo.registry import Registrar


@hookimpl
def register(zoo: Registrar) -> None:
    zoo.generator("dcgan", "genzoo_plugins.dcgan.model:DCGAN")
    zoo.recipe("dcgan", "genzoo_plugins.dcgan.recipe:DCGANRecipe")
    zoo.preset("dcgan.tiny", "recipes/tiny.yaml")
