"""The generator: anything that turns seeds and options into images."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, final

import torch
from torch import Tensor, nn

from genzoo.editing import Edit, Editor, read_edit
from genzoo.errors import OptionError, UnknownName
from genzoo.frozen import Frozen
from genzoo.interpolation import Way, stops
from genzoo.noise import Noise, Start
from genzoo.options import Options as Options
from genzoo.options import plain, read_options
from genzoo.part import DEFAULT_BATCH as DEFAULT_BATCH
from genzoo.part import Part, batch_size
from genzoo.part import evaluating as evaluating

if TYPE_CHECKING:
    from genzoo.cards import Card
    from genzoo.registry import Zoo


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
    #: A line of Python that shows on a model card how it is asked; {labels} and {shape} are filled in.
    usage: ClassVar[str] = "images = model.generate(range(8){labels})  # (8, {shape}) in [-1, 1], one per seed"
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
    def given_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that a model which ``takes_images`` is made for."""
        return self.shape

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

    def edit(self, noise: Noise, options: Any, edit: Edit) -> Iterator[Tensor]:
        """Like ``sample``, from given images: yield them (N, C, H, W) as they change; the last are the result.

        Pixels outside the mask, and whatever lies outside [-1, 1], are put right by the caller.
        """
        raise OptionError("this model cannot change images; a diffusion model can: leave image out, or name another")

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
        return read_options(type(self), self.card, given)

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
        noise: Tensor | Start | None = None,
        batch: int | None = None,
        exact: bool = False,
        **options: Any,
    ) -> Tensor:
        """Images, float32 (N, C, H, W) in [-1, 1], one per seed.

        Image i depends on the weights, the options and ``seeds[i]``; not on its neighbours, its position or the batch
        (beyond the rounding of a floating-point sum: bit-equal at one batch size with ``exact``).

        Args:
            seeds: integers in [0, 2**32), or one; by default 0, 1, 2 ... for as many rows as ``noise`` has.
            noise: (N, C, H, W), or this family's latent shape, in place of the seeds' own initial noise; or a
                ``Start``, which fits any shape.
            batch: images per network call, 64 by default.
            exact: pad a short last batch to ``batch``, so that the pixels do not depend on N even by rounding.
            options: this family's options, as ``labels=``, ``steps=``, ``scheduler=``, ``guidance=``. For a model that
                only changes images, also ``images=`` (N, C, H, W) in [-1, 1]. For one that makes them and can change
                them too, ``image=`` (C, H, W), or one per seed; ``mask=`` (H, W), 1 where it may change; ``strength=``
                0 (the image) to 1; ``method=`` an editor, as "sdedit", "repaint:resamplings=5" or "inversion".

        Raises:
            OptionError: unknown or unfit options, labels, seeds or noise.
        """
        made = list(self.batches(seeds, noise=noise, batch=batch, exact=exact, **options))
        return made[0] if len(made) == 1 else torch.cat(made)

    @final
    def batches(
        self,
        seeds: Sequence[int] | int | None = None,
        *,
        noise: Tensor | Start | None = None,
        batch: int | None = None,
        exact: bool = False,
        **options: Any,
    ) -> Iterator[Tensor]:
        """``generate`` batch by batch, on the CPU's side of memory: for progress bars and runs larger than memory."""
        for part in self._parts(seeds, noise=noise, batch=batch, exact=exact, **options):
            yield part.result(self)

    @final
    def trajectories(
        self,
        seeds: Sequence[int] | int | None = None,
        *,
        noise: Tensor | Start | None = None,
        batch: int | None = None,
        exact: bool = False,
        **options: Any,
    ) -> Iterator[Iterator[Tensor]]:
        """For each batch, its images after every step: what ``generate`` returns, as it comes into being."""
        for part in self._parts(seeds, noise=noise, batch=batch, exact=exact, **options):
            yield part.trajectory(self)

    def _parts(
        self,
        seeds: Sequence[int] | int | None,
        *,
        noise: Tensor | Start | None,
        batch: int | None,
        exact: bool,
        **options: Any,
    ) -> Iterator[Part]:
        """The batches that were asked for."""
        edit = read_edit(options, self.Options.model_fields, self.shape, self._editor)
        noise = self._start(noise, options.pop("images", None))
        wanted = self.options(**options)
        if seeds is None:
            rows_given = noise if noise is not None else edit
            seeds = range(len(rows_given)) if rows_given is not None else (0,)
        seeds = plain(seeds)
        everything = Noise(tuple(seeds) if isinstance(seeds, Iterable) else (seeds,))
        if not len(everything):
            raise OptionError("no seeds: give at least one")
        if noise is not None and len(noise) != len(everything):
            raise OptionError(f"noise has {len(noise)} rows for {len(everything)} seeds; give one row per seed")
        size = batch_size(batch)
        edit = None if edit is None else edit.spread(len(everything))
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
            one = None if edit is None else edit.rows(padded)
            yield Part(part, wanted.model_copy(update={"labels": chosen}), len(rows), one)

    def _editor(self, spec: str) -> Editor:
        from genzoo.registry import default_zoo

        found: Editor = (self.zoo or default_zoo()).make("editor", spec)
        return found

    def interpolate(
        self,
        seeds: Sequence[int],
        frames: int,
        *,
        loop: bool = False,
        batch: int | None = None,
        exact: bool = False,
        **options: Any,
    ) -> Tensor:
        """The way from seed to seed, float32 (F, C, H, W) in [-1, 1]: through the initial noise, along great circles.

        Frame k * frames starts from seed k's noise, and F is as ``interpolation.stops`` says. Whatever else is drawn
        (layer noise, a stochastic scheduler's) is that of the first seed in all frames, so that nothing flickers.

        Args:
            seeds: two or more.
            frames: from one seed to the next.
            loop: lead back to the first seed.
            batch, exact, options: as for ``generate``; without a label the first seed draws it, for all frames.

        Raises:
            OptionError: fewer than two seeds, frames below 1, unknown options, more than one class.
        """
        way = Way(seeds, stops(len(seeds), frames, loop))
        wanted = self.options(**options).labels
        labels = self.label_numbers(wanted, Noise(way.seeds))
        if labels is not None:
            if wanted is not None and len(set(labels)) > 1:
                raise OptionError("noise has no way between classes; give one label")
            options["labels"] = labels[0]
        return self.generate(way.seeds[:1] * len(way), noise=way, batch=batch, exact=exact, **options)

    def _start(self, noise: Tensor | Start | None, images: Tensor | None) -> Tensor | Start | None:
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
