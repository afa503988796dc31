"""The built-in metrics and the extractor that they look through."""

from genzoo.hookspecs import hookimpl
from genzoo.registry import Registrar


@hookimpl
def register(zoo: Registrar) -> None:
    zoo.extractor("fashion-classifier", "genzoo_plugins.metrics.classifier:FashionClassifier")
    zoo.recipe("fashion-classifier", "genzoo_plugins.metrics.classifier:ClassifierRecipe")
    zoo.metric("frechet", "genzoo_plugins.metrics.distances:Frechet")
    zoo.metric("kernel", "genzoo_plugins.metrics.distances:Kernel")
    zoo.metric("precision", "genzoo_plugins.metrics.manifold:Precision")
    zoo.metric("recall", "genzoo_plugins.metrics.manifold:Recall")
    zoo.metric("density", "genzoo_plugins.metrics.manifold:Density")
    zoo.metric("coverage", "genzoo_plugins.metrics.manifold:Coverage")
    zoo.metric("label-accuracy", "genzoo_plugins.metrics.control:LabelAccuracy")
