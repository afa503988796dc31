"""The generator: anything that turns seeds and options into images."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, final

import torch
from pydantic import Field, Strict, ValidationError
from torch import Tensor, nn

from genzoo.errors import OptionError, UnknownName, explain
from genzoo.frozen import Frozen
from genzoo.noise import Noise

if TYPE_CHECKING:
    from genzoo.cards import Card
    from genzoo.registry import Zoo

#: Images per network call where the caller does not say: large enough to fill a CPU, small enough for any memory.
DEFAULT_BATCH = 64


class Options(Frozen):
    """What every generator can be asked per call. A family adds its own fields, each described and defaulted."""

    labels: Annotated[
        Annotated[tuple[int | str, ...], Strict(False)] | int | str | None,
        Field(description="class numbers or names, one or one per image; by default each seed draws its own"),
    ] = None


#: Options under a name that Generator's own attribute does not hide.
_Options = Options


class Generator(nn.Module, ABC):
    """Turns seeds and options into images.

    A family subclasses it, names its ``Config`` (architecture) and ``Options`` (per call) and implements ``sample``;
    generate, compare, bench, train and the Hub then work for it. ``Config`` needs no fixed fields; a conditional model
    says how many classes it knows through ``num_classes``.

    Attributes:
        config: the architecture this model was built from.
        card: what the catalogue knows of it, where it came from a catalogue.
        zoo: where names in options are looked up.
    """

    Config: ClassVar[type[Frozen]] = Frozen
    Options: ClassVar[type[Options]] = Options
    #: Whether it changes given images, rather than making them from noise.
    takes_images: ClassVar[bool] = False
    #: Options that trade quality for control or variety, with the values at which a comparison measures the trade.
    control: ClassVar[Mapping[str, Sequence[float]]] = {}

    def __init__(self, config: Frozen) -> None:
        super().__init__()
        self.config = config
        self.card: Card | None = None
        self.zoo: Zoo | None = None

    # -- what a family says ------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""

    @property
    def num_classes(self) -> int:
        """How many classes can be asked for; 0 where the model takes no label."""
        return 0

    @abstractmethod
    def sample(self, noise: Noise, options: Any) -> Iterator[Tensor]:
        """Yield the images (N, C, H, W) as they come into being; the last are the result.

        A one-pass model yields once, an iterative one after every step. Called in evaluation mode, without gradients.

        Args:
            noise: the samples' random streams, N of them.
            options: this family's ``Options``, with ``labels`` a tuple of N class numbers, or None.
        """

    def nfe(self, options: Any) -> float:
        """Evaluations of the network per image under these options; guidance and second-order solvers count in full."""
        return 1

    # -- what everybody gets -----------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """The floating type of the weights."""
        return next((p.dtype for p in self.parameters() if p.is_floating_point()), torch.float32)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, from the card; their numbers as text where it has none."""
        if self.card is not None and self.card.classes:
            return self.card.classes
        return tuple(str(i) for i in range(self.num_classes))

    def options(self, **given: Any) -> _Options:
        """The family's options: its defaults, overridden by the card's, overridden by ``given``.

        Raises OptionError that names every unknown or unfit option.
        """
        defaults = dict(self.card.options) if self.card is not None else {}
        given = {key: _plain(value) for key, value in given.items()}
        name = self.card.name if self.card is not None else type(self).__name__
        unknown = [key for key in given if key not in self.Options.model_fields]
        if unknown:
            raise OptionError(str(UnknownName("option", unknown[0], self.Options.model_fields)) + f" ({name})")
        try:
            return self.Options(**{**defaults, **given})
        except ValidationError as error:
            raise OptionError(explain(error, f"options of {name}")) from None

    def label_numbers(self, labels: Any, noise: Noise) -> tuple[int, ...] | None:
        """One class number per sample from names, numbers, one for all, or None (each seed draws its own class)."""
        if not self.num_classes:
            if labels is not None:
                raise OptionError("this model takes no labels: it is unconditional; leave labels out")
            return None
        if labels is None:
            return noise.choose(self.num_classes, "labels")
        listed = (labels,) if isinstance(labels, int | str) else tuple(labels)
        if len(listed) == 1:
            listed = listed * len(noise)
        if len(listed) != len(noise):
            raise OptionError(f"{len(listed)} labels for {len(noise)} seeds; give one label, or one per seed")
        return tuple(self._label_number(label) for label in listed)

    def _label_number(self, label: int | str) -> int:
        if isinstance(label, str):
            folded = {name.casefold(): i for i, name in reversed(list(enumerate(self.classes)))}
            if label.casefold() in folded:
                return folded[label.casefold()]
            if not label.isdecimal() or len(label) > 18:  # more digits than any count of classes has
                raise OptionError(str(UnknownName("label", label, self.classes)))
        if not 0 <= int(label) < self.num_classes:
            raise OptionError(f"label {label} is out of range; this model knows 0 to {self.num_classes - 1}")
        return int(label)

    @final
    def generate(
        self,
        seeds: Sequence[int] | int | None = None,
        *,
        noise: Tensor | None = None,
        batch: int | None = None,
        exact: bool = False,
        **options: Any,
    ) -> Tensor:
        """Images, float32 (N, C, H, W) in [-1, 1], one per seed.

        Image i depends on the weights, the options and ``seeds[i]``; not on its neighbours, its position or the batch
        (beyond the rounding of a floating-point sum: bit-equal at one batch size with ``exact``).

        Args:
            seeds: integers in [0, 2**32), or one; by default 0, 1, 2 ... for as many rows as ``noise`` has.
            noise: (N, C, H, W), or this family's latent shape, in place of the seeds' own initial noise.
            batch: images per network call, 64 by default.
            exact: pad a short last batch to ``batch``, so that the pixels do not depend on N even by rounding.
            options: this family's options, as ``labels=``, ``steps=``, ``scheduler=``, ``guidance=``; and, for a model
                that changes images, ``images=`` (N, C, H, W) in [-1, 1].

        Raises:
            OptionError: unknown or unfit options, labels, seeds or noise.
        """
        return torch.cat(list(self.batches(seeds, noise=noise, batch=batch, exact=exact, **options)))

    @final
    def batches(
        self,
        seeds: Sequence[int] | int | None = None,
        *,
        noise: Tensor | None = None,
        batch: int | None = None,
        exact: bool = False,
        **options: Any,
    ) -> Iterator[Tensor]:
        """``generate`` batch by batch, on the CPU's side of memory: for progress bars and runs larger than memory."""
        for *_, last in self.trajectories(seeds, noise=noise, batch=batch, exact=exact, **options):
            yield last.cpu()

    @final
    def trajectories(
        self,
        seeds: Sequence[int] | int | None = None,
        *,
        noise: Tensor | None = None,
        batch: int | None = None,
        exact: bool = False,
        **options: Any,
    ) -> Iterator[Iterator[Tensor]]:
        """For each batch, its images after every step: what ``generate`` returns, as it comes into being."""
        noise = self._start(noise, options.pop("images", None))
        wanted = self.options(**options)
        if seeds is None:
            seeds = range(len(noise)) if noise is not None else (0,)
        seeds = _plain(seeds)
        everything = Noise(tuple(seeds) if isinstance(seeds, Iterable) else (seeds,))
        if not len(everything):
            raise OptionError("no seeds: give at least one")
        if noise is not None and len(noise) != len(everything):
            raise OptionError(f"noise has {len(noise)} rows for {len(everything)} seeds; give one row per seed")
        size = DEFAULT_BATCH if batch is None else batch
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise OptionError(f"batch={batch!r} is out of range; give 1 or more")
        labels = self.label_numbers(wanted.labels, everything)
        for start in range(0, len(everything), size):
            rows = list(range(start, min(start + size, len(everything))))
            padded = rows + [rows[-1]] * (size - len(rows) if exact else 0)
            part = Noise(
                [everything.seeds[row] for row in padded],
                initial=None if noise is None else noise[padded],
                device=self.device,
                dtype=self.dtype,
            )
            chosen = None if labels is None else tuple(labels[row] for row in padded)
            yield self._steps(part, wanted.model_copy(update={"labels": chosen}), len(rows))

    def _start(self, noise: Tensor | None, images: Tensor | None) -> Tensor | None:
        """What the walk begins with, where the caller gives it: noise, or the images that a translator changes."""
        if self.takes_images:
            if images is None or noise is not None:
                raise OptionError("this model changes images: give images=(N, C, H, W) in [-1, 1], and no noise")
            return images
        if images is not None:
            raise OptionError("this model makes images from noise and takes none; leave images out")
        return noise

    def save_pretrained(self, folder: str | os.PathLike[str], *, layout: str = "genzoo") -> None:
        """Write weights, config and model card into a folder that ``genzoo.load`` takes; see ``publish.save``."""
        from genzoo.publish import save

        save(self, Path(folder), layout=layout)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        create_pr: bool = False,
    ) -> str:
        """Upload to the Hub; returns the address of the commit. See ``genzoo.publish.push``."""
        from genzoo.publish import push

        return push(self, repo_id, private=private, token=token, create_pr=create_pr)

    def _steps(self, noise: Noise, options: _Options, keep: int) -> Iterator[Tensor]:
        steps = self.sample(noise, options)
        while True:
            # The mode is set around every step, so that a consumer's code between two steps never runs inside it.
            with evaluating(self), torch.inference_mode():
                images = next(steps, None)
                if images is None:
                    return
                out = images[:keep].float().clamp(-1, 1)
            yield out.clone()


def _plain(value: Any) -> Any:
    """Tensors and arrays as lists or bare numbers, which is what is checked."""
    return value.tolist() if hasattr(value, "tolist") else value


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Every submodule in evaluation mode inside the block, each in its own former mode afterwards."""
    training = [m for m in module.modules() if m.training]
    module.eval()
    try:
        yield
    finally:
        for m in training:
            m.training = True
