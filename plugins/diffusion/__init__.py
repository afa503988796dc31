"""Diffusion models: DDPM and DDIM with classifier-free guidance on a conditional U-Net."""

from genzoo.hookspecs import hookimpl
from genzoo.registry import Registrar


@hookimpl
def register(zoo: Registrar) -> None:
    zoo.generator("diffusion", "genzoo_plugins.diffusion.model:Diffusion")
    zoo.generator("latent-diffusion", "genzoo_plugins.diffusion.latent:LatentDiffusion")
    zoo.scheduler("ddpm", "genzoo_plugins.diffusion.schedulers:DDPM")
    zoo.scheduler("ddim", "genzoo_plugins.diffusion.schedulers:DDIM")
    zoo.guidance("none", "genzoo_plugins.diffusion.guidances:Unguided")
    zoo.guidance("cfg", "genzoo.contrast:ClassifierFree")
    zoo.recipe("diffusion", "genzoo_plugins.diffusion.recipe:DiffusionRecipe")
    zoo.preset("ddpm.tiny", "recipes/tiny.yaml")
