"""Filters: guidance that takes another's denoiser and gives one back, so that it can follow it in a chain."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from pydantic import Field, PrivateAttr
from torch import Tensor

from genzoo.cards import Card
from genzoo.contrast import ClassifierFree
from genzoo.denoiser import Condition, Denoiser
from genzoo.errors import GenzooError, OptionError
from genzoo.guidance import Guidance
from genzoo.metric import Extractor
from genzoo.registry import Zoo, default_zoo
from genzoo.scheduler import Denoise, Level
from genzoo.weights import find_card
from genzoo_plugins.guidance.contrast import beside, classes_of, per_sample


class Filter(Guidance):
    """Works on a denoise function. Alone, it works on the plain conditional model."""

    @abstractmethod
    def after(self, denoise: Denoise, denoiser: Denoiser, condition: Condition, null: Condition | None) -> Denoise:
        """``denoise``, filtered; the others are as in ``Guidance.__call__``."""

    def evaluations_after(self, before: int, level: Level) -> int:
        """Evaluations of a call at one level, where the filtered function needs ``before``."""
        return before

    def __call__(self, denoiser: Denoiser, condition: Condition, null: Condition | None) -> Denoise:
        return self.after(lambda x, t: denoiser(x, t, condition), denoiser, condition, null)

    def evaluations_at(self, level: Level) -> int:
        return self.evaluations_after(1, level)


class Interval(Filter):
    """Guidance in a limited interval (Kynkaanniemi et al. 2024): where low < sigma / alpha <= high, and nowhere else.

    Outside it is the plain conditional model, at one evaluation. Alone, it is classifier-free guidance with ``scale``
    inside; in a chain it lets the parts before it work there.
    """

    low: Annotated[float, Field(ge=0, le=1e9, description="sigma / alpha at or below which nothing is guided")] = 0.0
    high: Annotated[float, Field(ge=0, le=1e9, description="sigma / alpha above which nothing is guided")] = 1e9
    scale: (
        Annotated[
            float, Field(ge=-100, le=100, description="of classifier-free guidance, 2 by default; not in a chain")
        ]
        | None
    ) = None

    def inside(self, level: Level) -> bool:
        """Whether a level is guided; pure noise is, where ``high`` is not set."""
        return self.low < min(level.sigma / max(level.alpha, 1e-12), 1e9) <= self.high

    def after(self, denoise: Denoise, denoiser: Denoiser, condition: Condition, null: Condition | None) -> Denoise:
        def limited(x: Tensor, t: float) -> Tensor:
            level = Level(t, *denoiser.schedule.level(t))
            plain: Tensor = denoise(x, t) if self.inside(level) else denoiser(x, t, condition)
            return plain

        return limited

    def __call__(self, denoiser: Denoiser, condition: Condition, null: Condition | None) -> Denoise:
        return self.after(self._alone(denoiser, condition, null), denoiser, condition, null)

    @property
    def _alone(self) -> Guidance:
        return ClassifierFree(scale=2.0 if self.scale is None else self.scale)

    @property
    def evaluations(self) -> int:
        return self._alone.evaluations

    def evaluations_at(self, level: Level) -> int:
        return self.evaluations_after(self.evaluations, level)

    def evaluations_after(self, before: int, level: Level) -> int:
        return before if self.inside(level) else 1


class Threshold(Filter):
    """Dynamic thresholding (Saharia et al. 2022, section 2.3).

    s is the ``percentile`` of a sample's |x_0|, at least 1 and at most ``most``; x_0 is clamped to [-s, s] and divided
    by s. Where s is 1 it is plain clipping.
    """

    percentile: Annotated[float, Field(ge=0, le=1, description="share of the pixels that stay as they are")] = 0.995
    most: Annotated[float, Field(ge=1, le=1e9, description="largest threshold")] = 1e9

    def after(self, denoise: Denoise, denoiser: Denoiser, condition: Condition, null: Condition | None) -> Denoise:
        def thresholded(x: Tensor, t: float) -> Tensor:
            x0 = denoise(x, t)
            size = per_sample(x0.abs()).float() if x0.dtype != torch.float64 else per_sample(x0.abs())
            # One sample after the other: torch takes the quantiles of 16 million numbers at most.
            limit = torch.stack([torch.quantile(row, self.percentile) for row in size]).clamp(1, self.most)
            limit = beside(limit, x0).to(x0.dtype)
            return torch.maximum(torch.minimum(x0, limit), -limit) / limit

        return thresholded

    @property
    def evaluations(self) -> int:
        return 1


class Naming(Filter):
    """A filter that names something: it is looked up where the model's own names are."""

    _zoo: Zoo | None = PrivateAttr(default=None)

    def within(self, zoo: Zoo) -> Guidance:
        found = self.model_copy()
        found._zoo = zoo
        return found

    @property
    def zoo(self) -> Zoo:
        """Where names are looked up; everything that is installed, for a model that does not say."""
        return self._zoo or default_zoo()


Given = ParamSpec("Given")
Made = TypeVar("Made")


def once(make: Callable[Given, Made]) -> Callable[Concatenate[Denoiser, Given], Made]:
    """``make`` for a model that is guided, called only where it is given anything else than before.

    What a guidance names serves every batch, and a guidance is made anew for each. The last one stays, for as long as
    the model that it guides. It is not made in inference mode, for its weights must be ordinary tensors: to be used
    outside it, and for gradients to pass through.
    """
    kept: WeakKeyDictionary[Denoiser, tuple[Any, Made]] = WeakKeyDictionary()

    def made(guided: Denoiser, /, *args: Given.args, **kwargs: Given.kwargs) -> Made:
        given = (args, kwargs)
        if guided not in kept or kept[guided][0] != given:
            # The one before is let go first: there may be no room for both.
            kept.pop(guided, None)
            with torch.inference_mode(False):
                kept[guided] = given, make(*args, **kwargs)
        return kept[guided][1]

    return made


@once
def weaker(zoo: Zoo, card: Card, name: str, device: torch.device, dtype: torch.dtype) -> Denoiser:
    """The denoiser of the model ``name``, whose card is ``card``: with other weights, it has another."""
    found = getattr(zoo.load(name, device=device, dtype=dtype, local_files_only=True), "denoiser", None)
    if not isinstance(found, Denoiser):
        raise OptionError(f"{name} is no diffusion model, so it cannot guide one; name a weaker diffusion model")
    return found


@once
def classifier(zoo: Zoo, spec: str) -> Extractor:
    """A registered extractor."""
    found: Extractor = zoo.make("extractor", spec)
    return found


class Auto(Naming):
    """Autoguidance (Karras et al. 2024): away from a weaker model with the same condition.

    x_0 = W + scale (D - W), W being the x_0 of the card ``model``, which must know the same classes, shape and noise
    schedule. Its evaluation is counted in full, whatever its size. A model of the Hub must have been pulled before.
    """

    model: Annotated[str, Field(min_length=1, max_length=200, description="the card of the weaker model")]
    scale: Annotated[float, Field(ge=-100, le=100, description="1 is the model itself")] = 2.0

    def after(self, denoise: Denoise, denoiser: Denoiser, condition: Condition, null: Condition | None) -> Denoise:
        if self.scale == 1:
            return denoise
        weak = self._weaker(denoiser)
        self._check(denoiser, weak)

        def guided(x: Tensor, t: float) -> Tensor:
            return torch.lerp(weak(x, t, condition), denoise(x, t), self.scale)

        return guided

    def _weaker(self, strong: Denoiser) -> Denoiser:
        """The weaker model, from what is at hand.

        Nothing is fetched: a card's own options may name this guidance, and to load one model must never pull another.
        """
        weights = next(strong.parameters(), torch.empty(0))
        try:
            card, _ = find_card(self.zoo, self.model, local_files_only=True)
            return weaker(strong, self.zoo, card, self.model, weights.device, weights.dtype)
        except GenzooError as error:
            from genzoo.hub import HubError  # here alone: most guidances never meet the Hub

            if isinstance(error, HubError) and error.cause == "offline":
                raise OptionError(f"a guidance fetches nothing; type: genzoo pull {self.model}") from None
            raise

    def _check(self, strong: Denoiser, weak: Denoiser) -> None:
        length = strong.schedule.length
        at = torch.linspace(0, length, 11, dtype=torch.float64)
        alike = weak.schedule.length == length and all(
            torch.allclose(a, b, rtol=0, atol=1e-6)
            for a, b in zip(strong.schedule.levels(at), weak.schedule.levels(at), strict=True)
        )
        if not alike or weak.patch != strong.patch:
            raise OptionError(f"{self.model} has another noise schedule or patch; name a weaker model with the same")
        if len({classes_of(weak), classes_of(strong)} - {None}) > 1:
            raise OptionError(f"{self.model} was not trained on the same classes; name a weaker model that was")

    @property
    def evaluations(self) -> int:
        return 1 if self.scale == 1 else 2

    def evaluations_after(self, before: int, level: Level) -> int:
        return before + self.evaluations - 1


class Classifier(Naming):
    """Classifier guidance by a registered extractor that has an opinion of the class, through x_0.

    Dhariwal & Nichol 2021 add the gradient of log p(y | x_t). Here p(y | x_t) is p(y | x_0 = D(x_t)), as no
    classifier of noisy images is needed for it; with Cov[x_0 | x_t] taken as r^2 I, r^2 = sigma^2 / (alpha^2 + sigma^2)
    (Song et al. 2023, pseudo-inverse guidance), that is x_0 + scale r^2 grad_x0 log p(y | x_0). The network is not
    differentiated and not evaluated again.
    """

    extractor: Annotated[str, Field(min_length=1, max_length=200, description="a registered extractor")]
    scale: Annotated[float, Field(ge=-1e6, le=1e6, description="0 is the model itself")] = 1.0

    def after(self, denoise: Denoise, denoiser: Denoiser, condition: Condition, null: Condition | None) -> Denoise:
        if self.scale == 0:
            return denoise
        if "class_labels" not in condition:
            raise OptionError("this model is unconditional, so there is no class to guide to; leave the classifier out")
        labels = condition["class_labels"]
        extractor = classifier(denoiser, self.zoo, self.extractor)

        def guided(x: Tensor, t: float) -> Tensor:
            x0 = denoise(x, t)
            alpha, sigma = denoiser.schedule.level(t)
            gradient = log_likelihood_gradient(extractor, x0, labels, denoiser.patch)
            return x0.add(gradient.to(x0), alpha=self.scale * sigma**2 / (alpha**2 + sigma**2))

        return guided

    @property
    def evaluations(self) -> int:
        return 1


def log_likelihood_gradient(extractor: Extractor, x0: Tensor, labels: Tensor, patch: int = 1) -> Tensor:
    """grad_x0 log p(labels | x_0), of x_0's shape, float32, on the CPU, where extractors look at images.

    Sampling runs in inference mode, whose tensors keep no history: a copy made outside of it does.
    """
    with torch.inference_mode(False), torch.enable_grad():
        point = x0.detach().to("cpu", torch.float32, copy=True).requires_grad_()
        logits = extractor.extract(F.pixel_shuffle(point, patch) if patch > 1 else point).logits
        if logits is None:
            raise OptionError(f"extractor {extractor.name!r} has no opinion of the class; name one that has logits")
        if int(labels.max()) >= logits.shape[1]:
            raise OptionError(f"extractor {extractor.name!r} knows {logits.shape[1]} classes; name one that knows all")
        chosen = F.log_softmax(logits, 1).gather(1, labels.to("cpu", copy=True)[:, None]).sum()
        (gradient,) = torch.autograd.grad(chosen, point)
    return gradient
