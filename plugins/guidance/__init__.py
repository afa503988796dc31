"""Guidance: the ways of steering that grew out of classifier-free guidance."""

from genzoo.hookspecs import hookimpl
from genzoo.registry import Registrar

PACKAGE = "genzoo_plugins.guidance"


@hookimpl
def register(zoo: Registrar) -> None:
    zoo.guidance("rescaled", f"{PACKAGE}.contrast:Rescaled")
    zoo.guidance("apg", f"{PACKAGE}.contrast:Projected")
    zoo.guidance("cfg-zero-star", f"{PACKAGE}.contrast:ZeroStar")
    zoo.guidance("cfgpp", f"{PACKAGE}.contrast:PlusPlus")
    zoo.guidance("negative", f"{PACKAGE}.contrast:Negative")
    zoo.guidance("interval", f"{PACKAGE}.filters:Interval")
    zoo.guidance("threshold", f"{PACKAGE}.filters:Threshold")
    zoo.guidance("autoguidance", f"{PACKAGE}.filters:Auto")
    zoo.guidance("classifier", f"{PACKAGE}.filters:Classifier")
    zoo.guidance("chain", f"{PACKAGE}.chain:Chain")
