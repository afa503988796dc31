"""Samples on disk: a folder of very many images of one model, made by any number of processes, resumable at any moment.

The folder holds ``manifest.json``, which says what is to be made before the first image is, and lists every file when
all are there. Images come in shards; each is a function of the manifest's settings and its own number alone, and its
files appear whole or not at all. So whoever finds a shard missing may make it, and the folder ends with the same bytes
whether one process ran through or many were killed.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from pydantic import ValidationError
from torch import Tensor

from genzoo import bench
from genzoo.cards import Asset
from genzoo.distributed import World
from genzoo.errors import GenzooError, OptionError, explain
from genzoo.evaluate import checked
from genzoo.files import clear_unfinished, sha256_of
from genzoo.generator import Generator
from genzoo.images import to_bytes
from genzoo.manifest import Manifest, Settings, differences, read_manifest, write_manifest
from genzoo.noise import SEED_LIMIT, Noise
from genzoo.registry import Zoo
from genzoo.shards import SHARD_FORMATS
from genzoo.spec import plain_options

MANIFEST = "manifest.json"
LOCK = ".lock"


@dataclass(frozen=True)
class Progress:
    """How a run stands.

    Attributes:
        done: images there are, so far as this process knows: those it found, and those it made.
        mine: how many there are when this process has done its share.
    """

    done: int
    mine: int


class Samples:
    """The shards of a folder, as its settings cut them.

    Args:
        folder: where they lie.
        settings: what they hold.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, settings
        self.format = SHARD_FORMATS[settings.format]

    def __len__(self) -> int:
        return len(range(0, self.settings.count, self.settings.shard))

    def seeds(self, number: int) -> range:
        """The seeds of a shard."""
        first, size = self.settings.seed, self.settings.shard
        return range(first + number * size, first + min((number + 1) * size, self.settings.count))

    def files(self, number: int) -> list[str]:
        """Names of a shard's files."""
        return self.format.files(number, self.seeds(number))

    def labels(self, number: int, model: Generator) -> list[int]:
        """Class numbers of a shard's images; empty for a model without classes."""
        seeds, wanted = self.seeds(number), self.settings.labels
        first = seeds.start - self.settings.seed
        named = [wanted[(first + i) % len(wanted)] for i in range(len(seeds))] if wanted else None
        return list(model.label_numbers(named, Noise(seeds)) or ())

    def missing(self, pinned: Sequence[Asset]) -> list[int]:
        """Numbers of the shards that are not there, or no longer what a finished manifest pins."""
        pins = {asset.file: asset for asset in pinned}
        return [number for number in range(len(self)) if not self._is_made(number, pins)]

    def _is_made(self, number: int, pins: Mapping[str, Asset]) -> bool:
        if not pins:
            return self.format.holds(self.folder, number, self.seeds(number))
        try:
            found = {name: sha256_of(self.folder / name) for name in self.files(number)}
        except GenzooError:
            return False
        return all(name in pins and digest == pins[name].sha256 for name, digest in found.items())

    def make(self, number: int, model: Generator, options: Mapping[str, Any]) -> Iterator[int]:
        """Make a shard; yields the number of its images so far, batch by batch, and last when it is on disk."""
        seeds, labels = self.seeds(number), self.labels(number, model)
        given = {**options, "labels": labels} if labels else options
        parts: list[Tensor] = []
        done = 0
        for images in model.batches(seeds, batch=self.settings.batch, exact=True, **given):
            parts.append(to_bytes(checked(images, model, self.settings.model)))
            done += len(images)
            if done < len(seeds):
                yield done
        self.format.write(self.folder, number, seeds, torch.cat(parts), labels)
        yield done

    def pins(self) -> tuple[Asset, ...]:
        """Every file with its size and sha256; raises GenzooError if one is missing."""
        paths = [self.folder / name for number in range(len(self)) for name in self.files(number)]
        return tuple(Asset(file=path.name, sha256=sha256_of(path), size=path.stat().st_size) for path in paths)


def sample(
    zoo: Zoo,
    name: str,
    folder: Path,
    *,
    count: int,
    labels: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    world: World | None = None,
    **settings: Any,
) -> Iterator[Progress]:
    """Fill a folder with the images of ``count`` seeds, or go on where an earlier call ended; yields after every batch.

    Args:
        zoo: where names are looked up.
        name: the model.
        folder: empty, new, or begun with the same settings.
        count: images in all.
        labels: class names or numbers, taken in turn; by default each seed draws its own.
        options: of the generator.
        dtype: of its weights.
        world: the processes that share the work.
        settings: ``seed``, ``shard``, ``batch`` and ``format`` of ``Settings``.

    Raises:
        OptionError: unknown or unfit options or settings.
        GenzooError: a folder in use, with other files, or begun with other settings; says which.
    """
    world = world or World()
    options = dict(options or {})
    if "labels" in options:
        raise OptionError(
            "labels are no option of samples, which take them in turn; give labels=, on the command line --label"
        )
    model = zoo.load(name, device=world.device, dtype=dtype)
    if model.takes_images:
        raise OptionError(f"{name} changes images and makes none from seeds; see genzoo list for those that do")
    wanted = _manifest(zoo, model, name, count, labels, options, settings)
    samples = Samples(folder, wanted.settings)
    samples.labels(0, model)  # a misspelt label is refused before anything is written
    with contextlib.ExitStack() as stack:
        plan = world.by_first(lambda: _begin(stack, samples, wanted))
        mine = world.share(plan)
        found = count - sum(len(samples.seeds(number)) for number in plan)
        total = found + sum(len(samples.seeds(number)) for number in mine)
        yield Progress(found, total)
        for number in mine:
            for done in samples.make(number, model, options):
                yield Progress(found + done, total)
            found += len(samples.seeds(number))
        world.wait()
        world.by_first(lambda: _finish(samples))


def weights_digest(model: Generator) -> str:
    """The sha256 that names a model's weights: of the file that its card pins, else of its tensors, names and types."""
    if model.card is not None and model.card.weights is not None:
        return model.card.weights.sha256
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _manifest(
    zoo: Zoo,
    model: Generator,
    name: str,
    count: int,
    labels: Sequence[str],
    options: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Manifest:
    device = model.device.type
    try:
        asked = Settings(
            model=model.card.name if model.card is not None else name,
            weights=weights_digest(model),
            config=model.config.model_dump(mode="json"),
            options=plain_options({key: value for key, value in model.options(**options) if key != "labels"}, zoo),
            labels=tuple(labels),
            count=count,
            dtype=str(model.dtype).removeprefix("torch."),
            device=device,
            **settings,
        )
    except ValidationError as error:
        raise OptionError(explain(error, "settings of the samples", Settings)) from None
    if asked.seed + asked.count > SEED_LIMIT:
        raise OptionError(f"seed {asked.seed + asked.count - 1} is out of range; seeds end at {SEED_LIMIT - 1}")
    return Manifest(settings=asked, environment=bench.environment(device))


def _begin(stack: contextlib.ExitStack, samples: Samples, wanted: Manifest) -> list[int]:
    """Take the folder for this run, until the stack is left; returns the numbers of the shards to make."""
    folder, path = samples.folder, samples.folder / MANIFEST
    folder.mkdir(parents=True, exist_ok=True)
    try:
        stack.enter_context(FileLock(folder / LOCK, blocking=False))
    except Timeout:
        raise GenzooError(
            f"{folder} is being filled by another process; wait for it, or choose another --out"
        ) from None
    clear_unfinished(folder)  # nobody else's: they would hold the lock
    begun = read_manifest(path) if path.exists() else None
    if begun is None:
        if strangers := sorted(entry.name for entry in folder.iterdir() if entry.name != LOCK):
            raise GenzooError(f"{folder} holds {strangers[0]}, which no {MANIFEST} tells of; choose an empty --out")
        write_manifest(path, wanted)
    elif others := differences(begun, wanted):
        raise GenzooError(
            f"{folder} was begun with other settings: {'; '.join(others)}; repeat those, or choose another --out"
        )
    return samples.missing(begun.files if begun else ())


def _finish(samples: Samples) -> None:
    path = samples.folder / MANIFEST
    full = {"count": samples.settings.count, "files": samples.pins()}
    write_manifest(path, read_manifest(path).model_copy(update=full))
