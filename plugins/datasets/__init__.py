"""The built-in data sets."""

from genzoo.hookspecs import hookimpl
from genzoo.registry import Registrar


@hookimpl
def register(zoo: Registrar) -> None:
    zoo.dataset("fashion-mnist", "genzoo_plugins.datasets.fashion_mnist:FashionMNIST")
    zoo.dataset("image-folder", "genzoo_plugins.datasets.image_folder:ImageFolder")
