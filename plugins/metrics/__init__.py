"""The built-in metrics and the extractor that they look through."""

from genzoo.hookspecs import hookimpl
from genzoo.registry import Registrar


@hookimpl
def register(zoo: Registrar) -> None:
    zoo.extractor("fashion-classifier", "genzoo_plugins.metrics.classifier:FashionClassifier")
    zoo.recipe("fashion-classifier", "genzoo_plugins.metrics.classifier:ClassifierRecipe")
