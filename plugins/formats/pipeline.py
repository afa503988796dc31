"""How a pipeline of the diffusers library lies in its folder: settings of its parts, and weights whole or in shards."""

from __future__ import annotations

from dataclasses import dataclass

from genzoo.errors import CardError, printable
from genzoo.formats import Files, FormatError
from genzoo.tensors import Tensors

#: The version of the library whose files are written.
VERSION = "0.35.0"

WEIGHTS = "diffusion_pytorch_model"
NETWORK = "denoiser.network."

#: Keys that say how a file came to be, or that older versions wrote and nothing read.
IDLE = frozenset(
    {"_class_name", "_diffusers_version", "_name_or_path", "timestep_values", "tensor_format", "name_or_path"}
)


@dataclass(frozen=True)
class Layout:
    """Where the parts of a pipeline lie: in folders of their own, or side by side."""

    config: str
    scheduler: str
    folder: str

    @classmethod
    def of(cls, files: Files) -> Layout:
        nested = "unet/config.json" in files
        return cls(
            "unet/config.json" if nested else "config.json",
            "scheduler/scheduler_config.json"
            if "scheduler/scheduler_config.json" in files
            else "scheduler_config.json",
            "unet/" if nested else "",
        )


def lacks(files: Files, network: str) -> str | None:
    """What a folder lacks to be a pipeline around a network of that class; None where it lacks nothing."""
    layout = Layout.of(files)
    if layout.config not in files:
        return "no unet/config.json or config.json"
    try:
        found = files.json(layout.config).get("_class_name")
    except CardError as error:
        return str(error)
    if found != network:
        return f"{layout.config} is of {str(found)[:60]!r}, not {network!r}"
    if layout.scheduler not in files:
        return f"no {layout.scheduler} beside the {network}; name the pipeline's own folder"
    return None


def load_tensors(files: Files, folder: str, stem: str = WEIGHTS) -> Tensors:
    """The tensors of one model: one file, its half-precision variant, or shards with their index."""
    whole, index = f"{folder}{stem}.safetensors", f"{folder}{stem}.safetensors.index.json"
    half = f"{folder}{stem}.fp16.safetensors"
    if whole in files:
        return files.tensors(whole)
    if index in files:
        return _shards(files, folder, index)
    if half in files:
        return files.tensors(half)
    pickled = next((name for name in files.names if name.startswith(f"{folder}{stem}") and name.endswith(".bin")), None)
    if pickled:
        raise FormatError(
            f"{files.source}: only {pickled}, a pickle, which can run code; make a safe copy with "
            f"genzoo convert FOLDER/{pickled} FOLDER/{whole} and load that folder"
        )
    raise FormatError(f"{files.source}: no {whole}; fetch the model again")


def _shards(files: Files, folder: str, index: str) -> Tensors:
    places = files.json(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(shard, str) for shard in places.values()):
        raise FormatError(f"{files.source}: {index}: weight_map must say which file holds each tensor")
    shards = sorted(set(places.values()))
    lost = [shard for shard in shards if folder + shard not in files]
    if lost:
        shown = printable(", ".join(lost)[:200])
        raise FormatError(f"{files.source}: {len(lost)} of {len(shards)} shards are missing: {shown}")
    joined = Tensors()
    for shard in shards:
        part = files.tensors(folder + shard)
        wrong = [name for name in part if places.get(name) != shard]
        wrong += [name for name, place in places.items() if place == shard and name not in part]
        if wrong:
            raise FormatError(f"{files.source}: {shard}: tensor {wrong[0]!r} is not where {index} says")
        joined = joined.joined(part)
    return joined
