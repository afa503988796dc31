"""The built-in metrics and the extractor that they look through."""

from genzoo.hookspecs import hookimpl
from genzoo.registry import Registrar


@hookimpl
def register(zoo: Registrar) -> None:
    zoo.extractor("fashion-classifier", "genzoo_plugins.metrics.classifier:FashionClassifier")
    zoo.recipe("fashion-classifier", "genzoo_plugins.metrics.classifier:ClassifierRecipe")
    # In the order of a report's columns.
    zoo.metric("frechet", "genzoo_plugins.metrics.frechet:Frechet")
    zoo.metric("kernel", "genzoo_plugins.metrics.kernel:Kernel")
    zoo.metric("precision", "genzoo_plugins.metrics.manifold:Precision")
    zoo.metric("recall", "genzoo_plugins.metrics.manifold:Recall")
    zoo.metric("density", "genzoo_plugins.metrics.manifold:Density")
    zoo.metric("coverage", "genzoo_plugins.metrics.manifold:Coverage")
    zoo.metric("label-accuracy", "genzoo_plugins.metrics.control:LabelAccuracy")
    zoo.metric("frechet-infinity", "genzoo_plugins.metrics.frechet:FrechetInfinity")
    zoo.metric("class-diversity", "genzoo_plugins.metrics.diversity:ClassDiversity")
    zoo.metric("vendi", "genzoo_plugins.metrics.diversity:Vendi")
    zoo.metric("class-entropy", "genzoo_plugins.metrics.classes:ClassEntropy")
    zoo.metric("dropped-classes", "genzoo_plugins.metrics.classes:DroppedClasses")
    zoo.metric("copying", "genzoo_plugins.metrics.copying:Copying")
