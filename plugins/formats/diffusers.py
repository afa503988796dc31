"""The layout of the diffusers library, for pipelines of one U-Net that makes images: DDPM and DDIM."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from genzoo.cards import Card
from genzoo.errors import CardError
from genzoo.files import write_whole
from genzoo.formats import Files, Format, FormatError, card_name, licence
from genzoo.publish import readme
from genzoo.tensors import Tensors, write

#: The version of the library whose files are written.
VERSION = "0.35.0"

WEIGHTS = "diffusion_pytorch_model"
NETWORK = "denoiser.network."

#: Names that the library gave its attention before 2023.
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

PIPELINES = {"DDPMPipeline", "DDIMPipeline"}

#: Keys that say how a file came to be, or that older versions wrote and nothing read.
IDLE = {"_class_name", "_diffusers_version", "_name_or_path", "timestep_values", "tensor_format", "name_or_path"}

KINDS = {"linear": "linear", "scaled_linear": "scaled-linear", "squaredcos_cap_v2": "cosine"}
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
VARIANCES = {"fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large"}


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


class DiffusersUNet(Format):
    """``UNet2DModel`` with a DDPM or DDIM scheduler, in sub-folders or flat."""

    def detect(self, files: Files) -> str | None:
        layout = Layout.of(files)
        if layout.config not in files:
            return "no unet/config.json or config.json"
        try:
            found = files.json(layout.config).get("_class_name")
        except CardError as error:
            return str(error)
        if found != "UNet2DModel":
            return f"{layout.config} is of {str(found)[:60]!r}, not 'UNet2DModel'"
        if layout.scheduler not in files:
            return f"no {layout.scheduler} beside the UNet2DModel; name the pipeline's own folder"
        return None

    def read(self, files: Files) -> tuple[Card, Tensors]:
        layout = Layout.of(files)
        if "model_index.json" in files:
            pipeline = files.json("model_index.json").get("_class_name")
            if str(pipeline) not in PIPELINES:
                raise FormatError(
                    f"{files.source}: pipeline {str(pipeline)[:60]!r} is not supported; these are: "
                    f"{', '.join(sorted(PIPELINES))}"
                )
        sampling = read_scheduler(files.json(layout.scheduler), f"{files.source}: {layout.scheduler}")
        tensors = load_tensors(files, layout.folder)
        return make_card(files, files.json(layout.config), sampling, tensors.metadata), modern(tensors)

    def write(self, card: Card, tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
        network, scheduler = network_file(card), scheduler_file(card)
        unet = {name.removeprefix(NETWORK): tensor for name, tensor in tensors.items() if name.startswith(NETWORK)}
        if len(unet) < len(tensors):
            raise FormatError(f"{card.name}: it holds more than a U-Net, which this layout has no place for")
        words = {"format": "pt"}
        if card.config.get("num_classes") and card.config.get("null_class", True):
            words["genzoo.null_class"] = "true"
        kind = str(scheduler["_class_name"])
        index = {
            "_class_name": "DDIMPipeline" if kind.startswith("DDIM") else "DDPMPipeline",
            "_diffusers_version": VERSION,
            "scheduler": ["diffusers", kind],
            "unet": ["diffusers", "UNet2DModel"],
        }
        write(folder / "unet" / f"{WEIGHTS}.safetensors", unet, words)
        for name, data in (
            ("unet/config.json", network),
            ("scheduler/scheduler_config.json", scheduler),
            ("model_index.json", index),
        ):
            write_whole(folder / name, json.dumps(data, indent=2) + "\n")
        write_whole(folder / "README.md", readme(card, "diffusers"))


def network_file(card: Card) -> dict[str, Any]:
    """unet/config.json of a card."""
    network = dict(card.config.get("network") or {})
    if card.generator != "diffusion" or network.pop("kind", "unet") != "unet":
        raise FormatError(f"{card.name}: only diffusion models with the U-Net of DDPM have a place in this layout")
    if card.config.get("patch", 1) != 1:
        raise FormatError(f"{card.name}: patch={card.config['patch']} folds its pixels, which this layout cannot say")
    return {"_class_name": "UNet2DModel", "_diffusers_version": VERSION, **network}


def scheduler_file(card: Card) -> dict[str, Any]:
    """scheduler_config.json of a card: its schedule, and the scheduler among its options."""
    name, _, rest = str(card.options.get("scheduler", "ddim")).partition(":")
    given = dict(part.partition("=")[::2] for part in rest.split(",") if part)
    if name not in ("ddim", "ddpm"):
        raise FormatError(f"{card.name}: its scheduler {name!r} is not written in this layout; ddim and ddpm are")
    schedule, clip = card.config.get("schedule") or {}, card.config.get("clip", 1.0)
    words = {ours: theirs for theirs, ours in KINDS.items()}
    kind = schedule.get("kind", "linear")
    out: dict[str, Any] = {
        "_class_name": "DDIMScheduler" if name == "ddim" else "DDPMScheduler",
        "_diffusers_version": VERSION,
        "num_train_timesteps": schedule.get("steps", 1000),
        "beta_start": schedule.get("beta_start", 1e-4),
        "beta_end": schedule.get("beta_end", 0.02),
        "beta_schedule": words.get(kind, "linear"),
        "trained_betas": schedule["betas"] if kind == "listed" else None,
        "rescale_betas_zero_snr": schedule.get("zero_terminal_snr", False),
        "prediction_type": {ours: theirs for theirs, ours in PREDICTIONS.items()}[card.config.get("prediction", "eps")],
        "timestep_spacing": given.pop("spacing", "leading"),
        "steps_offset": int(given.pop("offset", 0)),
        "thresholding": False,
    }
    clip = float(given.pop("clip", clip)) if clip is not None or "clip" in given else None
    out |= {"clip_sample": clip is not None, "clip_sample_range": clip if clip is not None else 1.0}
    if name == "ddim":
        given.pop("eta", None)  # an argument of the pipeline, there
        out["set_alpha_to_one"] = given.pop("end", "0") == "0"
    else:
        out["variance_type"] = {"small": "fixed_small", "large": "fixed_large"}[given.pop("variance", "small")]
    if given:
        raise FormatError(f"{card.name}: {', '.join(given)}: an option of {name} that this layout cannot say")
    return out


@dataclass
class Sampling:
    """What a scheduler's file says, in genzoo's words."""

    schedule: dict[str, Any]
    prediction: str
    clip: float | None
    scheduler: str
    steps: int


@dataclass
class Keys:
    """A settings file read key by key: what nobody asked for is an error at the end."""

    data: Mapping[str, Any]
    source: str
    seen: set[str] = field(default_factory=set)

    def get(self, name: str, default: Any, kind: type | tuple[type, ...]) -> Any:
        """The value, of the right type (a whole number is a real one too), or the class's default."""
        self.seen.add(name)
        value = self.data.get(name, default)
        if isinstance(value, bool) and kind is not bool:
            value = str(value)
        if kind is float and isinstance(value, int | float):
            return float(value)
        if not isinstance(value, kind):
            raise FormatError(f"{self.source}: {name}: {str(value)[:60]!r} is not of the right type")
        return value

    def refuse(self, name: str, *accepted: Any) -> None:
        """A setting that only has an effect in other values than these is refused in those."""
        self.seen.add(name)
        if name in self.data and self.data[name] not in accepted:
            raise FormatError(
                f"{self.source}: {name}: {str(self.data[name])[:60]!r} is not supported; it would change the images"
            )

    def choose(self, name: str, default: str, known: Mapping[str, str]) -> str:
        """A word from a table."""
        word = self.get(name, default, str)
        if word not in known:
            raise FormatError(f"{self.source}: {name}: {word[:60]!r} is not supported; these are: {', '.join(known)}")
        return known[word]

    def finish(self) -> None:
        """Refuse the keys that are left."""
        left = sorted(set(self.data) - self.seen - IDLE)
        if left:
            raise FormatError(f"{self.source}: {', '.join(key[:60] for key in left)}: not known here, so not ignored")


def read_scheduler(data: Mapping[str, Any], source: str) -> Sampling:
    """A scheduler_config.json with every key honoured, or refused by its name."""
    keys, name = Keys(data, source), data.get("_class_name", "DDPMScheduler")
    if name not in ("DDPMScheduler", "DDIMScheduler"):
        raise FormatError(
            f"{source}: _class_name: {str(name)[:60]!r} is not supported; these are: DDPMScheduler, DDIMScheduler"
        )
    ddim = name == "DDIMScheduler"
    schedule = _schedule(keys)
    prediction = keys.choose("prediction_type", "epsilon", PREDICTIONS)
    # What older files call the same.
    keys.refuse("predict_epsilon", True)
    keys.refuse("thresholding", False, None)
    for idle in ("dynamic_thresholding_ratio", "sample_max_value"):  # they belong to thresholding
        keys.seen.add(idle)
    clip = keys.get("clip_sample_range", 1.0, float) if keys.get("clip_sample", True, bool) else None
    keys.seen.add("clip_sample_range")
    spacing = keys.choose("timestep_spacing", "leading", {word: word for word in ("leading", "trailing", "linspace")})
    offset = keys.get("steps_offset", 0, int)
    if schedule["zero_terminal_snr"] and prediction == "eps":
        raise FormatError(
            f"{source}: rescale_betas_zero_snr: a prediction of eps says nothing about the image where there is only "
            "noise; v_prediction and sample are supported"
        )
    given = [f"spacing={spacing}"] if spacing != "leading" else []
    given += [f"offset={offset}"] if offset and spacing == "leading" else []
    if ddim:
        if spacing == "linspace":
            raise FormatError(
                f"{source}: timestep_spacing: 'linspace' is not supported for DDIMScheduler, whose steps then end "
                "between the times of its own grid; leading and trailing are"
            )
        given += [f"clip={clip}"] if clip is not None else []
        given += [] if keys.get("set_alpha_to_one", True, bool) else ["end=1"]
        keys.refuse("variance_type", "fixed_small", "fixed_large", "fixed_small_log", "fixed_large_log")  # not read
    else:
        variance = keys.choose("variance_type", "fixed_small", VARIANCES)
        if variance == "large" and (spacing == "trailing" or offset):
            raise FormatError(
                f"{source}: variance_type: 'fixed_large' is not supported with timestep_spacing 'trailing' or a "
                "steps_offset: the library adds noise to the finished image there"
            )
        given += [f"variance={variance}"] if variance != "small" else []
        keys.seen.add("set_alpha_to_one")  # a DDIM setting that conversions leave behind
    keys.finish()
    chosen = ("ddim" if ddim else "ddpm") + (":" + ",".join(given) if given else "")
    return Sampling(schedule, prediction, clip, chosen, min(50 if ddim else 1000, schedule["steps"]))


def _schedule(keys: Keys) -> dict[str, Any]:
    keys.seen.add("timesteps")
    old = keys.data.get("timesteps", 1000)
    steps = keys.get("num_train_timesteps", old, int)
    start, end = keys.get("beta_start", 1e-4, float), keys.get("beta_end", 0.02, float)
    word = keys.get("beta_schedule", "linear", str)
    out: dict[str, Any] = {"steps": steps, "zero_terminal_snr": keys.get("rescale_betas_zero_snr", False, bool)}
    listed = keys.get("trained_betas", None, (list, type(None)))
    if listed is not None:
        # The list goes first; the other keys are then not read.
        return {**out, "kind": "listed", "steps": len(listed), "betas": listed}
    if word == "sigmoid":
        if not 1 <= steps <= 4096:
            raise FormatError(
                f"{keys.source}: num_train_timesteps: {steps} is not supported for 'sigmoid': 1 to 4096 are"
            )
        return {**out, "kind": "listed", "betas": _sigmoid(steps, start, end)}
    kind = keys.choose("beta_schedule", "linear", {**KINDS, "sigmoid": ""})
    return {**out, "kind": kind, "beta_start": start, "beta_end": end}


def _sigmoid(steps: int, start: float, end: float) -> list[float]:
    """beta_k = start + (end - start) / (1 + exp(-u_k)), u from -6 to 6 (Xu et al. 2022, GeoDiff)."""
    places = [-6 + 12 * k / max(steps - 1, 1) for k in range(steps)]
    return [start + (end - start) / (1 + math.exp(-u)) for u in places]


def make_card(files: Files, network: Mapping[str, Any], sampling: Sampling, metadata: Mapping[str, str]) -> Card:
    """The card of a pipeline; the network's keys are checked by the generator's own config when it is built."""
    source = f"{files.source}: the UNet2DModel's config"
    unet = {key: value for key, value in network.items() if key not in IDLE}
    if unet.get("class_embed_type") is not None:
        raise FormatError(f"{source}: class_embed_type: {str(unet['class_embed_type'])[:60]!r} is not supported")
    keys = Keys(unet, source)
    rows = keys.get("num_class_embeds", None, (int, type(None))) or 0
    null = rows > 1 and metadata.get("genzoo.null_class") == "true"
    config = {
        "network": {"kind": "unet", **unet},
        "schedule": sampling.schedule,
        "prediction": sampling.prediction,
        "num_classes": rows - 1 if null else rows,
        "null_class": null,
        "clip": sampling.clip,
    }
    height: Any
    width: Any
    size, channels = unet.get("sample_size"), keys.get("in_channels", 3, int)
    height, width = size if isinstance(size, list) and len(size) == 2 else (size, size)
    if not all(type(n) is int and 1 <= n <= 65536 for n in (channels, height, width)):
        raise FormatError(f"{source}: sample_size: {str(size)[:60]!r} gives no size of an image")
    return Card(
        name=card_name("diffusion", files.title),
        summary=f"A diffusion model in the layout of diffusers, from {files.source}"[:400],
        generator="diffusion",
        shape=(channels, height, width),
        config=config,
        options={"steps": sampling.steps, "scheduler": sampling.scheduler},
        licence=licence(files),
        paper="Denoising diffusion probabilistic models, arXiv:2006.11239",
    )


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
        raise FormatError(f"{files.source}: {len(lost)} of {len(shards)} shards are missing: {', '.join(lost)[:200]}")
    joined = Tensors()
    for shard in shards:
        part = files.tensors(folder + shard)
        wrong = [name for name in part if places.get(name) != shard]
        wrong += [name for name, place in places.items() if place == shard and name not in part]
        if wrong:
            raise FormatError(f"{files.source}: {shard}: tensor {wrong[0]!r} is not where {index} says")
        joined = joined.joined(part)
    return joined


def modern(tensors: Tensors) -> Tensors:
    """Under the names and shapes of today: attention's old names, and its weights that once were convolutions."""
    names = {}
    for name in tensors:
        parts = name.split(".")
        if "attentions" in parts and len(parts) >= 2 and parts[-2] in OLD_ATTENTION:
            parts[-2] = OLD_ATTENTION[parts[-2]]
        names[name] = NETWORK + ".".join(parts)
    if len(set(names.values())) < len(names):
        raise FormatError("the file holds attention weights under their old and their new names")
    out = tensors.renamed(names)
    for name, tensor in out.items():
        if ".attentions." in name and tensor.ndim == 4 and tensor.shape[2:] == torch.Size((1, 1)):
            out[name] = tensor[:, :, 0, 0]
    return out
