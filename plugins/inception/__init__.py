"""The extractor that the field's Frechet distances (FID) are stated in."""

from genzoo.hookspecs import hookimpl
from genzoo.registry import Registrar


@hookimpl
def register(zoo: Registrar) -> None:
    zoo.extractor("inception", "genzoo_plugins.inception.extractor:Inception")
