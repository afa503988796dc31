"""StyleGAN-lite: a style-based GAN small enough to be trained on a CPU, in the published StyleGAN2 layout."""

from genzoo.hookspecs import hookimpl
from genzoo.registry import Registrar


@hookimpl
def register(zoo: Registrar) -> None:
    zoo.generator("stylegan", "genzoo_plugins.stylegan.model:StyleGAN")
    zoo.format("stylegan2-rosinality", "genzoo_plugins.stylegan.layout:Rosinality")
    zoo.recipe("stylegan", "genzoo_plugins.stylegan.recipe:StyleGANRecipe")
    zoo.preset("stylegan-lite.tiny", "recipes/tiny.yaml")
