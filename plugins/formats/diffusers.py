"""The layout of the diffusers library, for pipelines of one U-Net that makes images: DDPM, DDIM and PNDM."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from genzoo.cards import Card
from genzoo.files import write_whole
from genzoo.formats import Files, Format, FormatError, card_of
from genzoo.registry import Zoo
from genzoo.tensors import Tensors, write
from genzoo_plugins.formats.keys import Keys
from genzoo_plugins.formats.pipeline import IDLE, NETWORK, VERSION, WEIGHTS, Layout, lacks, load_tensors
from genzoo_plugins.formats.sampling import Sampling, read_scheduler
from genzoo_plugins.formats.walks import Written

#: Names that the library gave its attention before 2023.
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

#: Pipelines, with the scheduler class that each makes of whatever its folder names; None where it takes that.
PIPELINES = {"DDPMPipeline": None, "DDIMPipeline": "DDIMScheduler", "PNDMPipeline": "PNDMScheduler"}


class DiffusersUNet(Format):
    """``UNet2DModel`` with its scheduler, in sub-folders or flat.

    The library's pipelines of one U-Net scale neither the first noise nor what the network is given, as the classes in
    sigma / alpha ask of them (EulerDiscreteScheduler and the like). Here such a class walks as it is meant to, and as
    the library's pipelines of latents walk.

    Two walks differ from the library's on purpose. One step alone is taken from the noisy end, whatever the spacing:
    "leading" there asks the clean end. And "trailing" has as many steps as are asked for: at some numbers of them (of
    1000 times 61 and 103 are the first) rounding gives the library one more, at time -1, where it reads the noisiest
    level.
    """

    library = "diffusers"
    keeps_options = False

    def detect(self, files: Files) -> str | None:
        return lacks(files, "UNet2DModel")

    def read(self, files: Files) -> tuple[Card, Tensors]:
        layout = Layout.of(files)
        kind = None
        if "model_index.json" in files:
            pipeline = str(files.json("model_index.json").get("_class_name"))
            if pipeline not in PIPELINES:
                raise FormatError(
                    f"{files.source}: pipeline {pipeline[:60]!r} is not supported; these are: "
                    f"{', '.join(sorted(PIPELINES))}"
                )
            kind = PIPELINES[pipeline]
        settings = files.json(layout.scheduler, infinite=True)
        sampling = read_scheduler(settings, f"{files.source}: {layout.scheduler}", kind)
        tensors = load_tensors(files, layout.folder)
        return make_card(files, files.json(layout.config), sampling, tensors.metadata), modern(tensors)

    def write(self, card: Card, tensors: Mapping[str, torch.Tensor], folder: Path, zoo: Zoo) -> None:
        network, walk = network_file(card), Written.of(card, zoo)
        unet = {name.removeprefix(NETWORK): tensor for name, tensor in tensors.items() if name.startswith(NETWORK)}
        if len(unet) < len(tensors):
            raise FormatError(f"{card.name}: it holds more than a U-Net, which this layout has no place for")
        words = {"format": "pt"}
        if card.config.get("num_classes") and card.config.get("null_class", True):
            words["genzoo.null_class"] = "true"
        index = {
            "_class_name": walk.pipeline,
            "_diffusers_version": VERSION,
            "scheduler": ["diffusers", walk.scheduler["_class_name"]],
            "unet": ["diffusers", "UNet2DModel"],
        }
        write(folder / "unet" / f"{WEIGHTS}.safetensors", unet, words)
        for name, data in (
            ("unet/config.json", network),
            ("scheduler/scheduler_config.json", walk.scheduler),
            ("model_index.json", index),
        ):
            write_whole(folder / name, json.dumps(data, indent=2) + "\n")

    def example(self, card: Card, name: str, zoo: Zoo) -> str:
        # The library's pipelines of one U-Net have no argument for labels.
        if card.config.get("num_classes"):
            return ""
        walk = Written.of(card, zoo)
        arguments = "".join(f", {key}={value!r}" for key, value in walk.arguments.items())
        return (
            f"import torch\nfrom diffusers import {walk.pipeline}\n\n"
            "seeds = [torch.Generator().manual_seed(seed) for seed in range(8)]\n"
            f"images = {walk.pipeline}.from_pretrained({name!r})(\n    8, generator=seeds{arguments}\n).images\n"
        )


def network_file(card: Card) -> dict[str, Any]:
    """unet/config.json of a card."""
    network = dict(card.config.get("network") or {})
    if card.generator != "diffusion" or network.pop("kind", "unet") != "unet":
        raise FormatError(f"{card.name}: only diffusion models with the U-Net of DDPM have a place in this layout")
    if card.config.get("patch", 1) != 1:
        raise FormatError(
            f"{card.name}: patch={card.config['patch']} folds squares of pixels into channels; as one network of whole "
            "images it would begin and end with a strided convolution, which UNet2DModel has not; train with patch 1"
        )
    if network.get("out_channels", 3) != network.get("in_channels", 3):
        raise FormatError(f"{card.name}: it has learned variances, which pipelines of this layout do not read")
    return {"_class_name": "UNet2DModel", "_diffusers_version": VERSION, **network}


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
    if keys.get("out_channels", 3, int) != keys.get("in_channels", 3, int):
        raise FormatError(
            f"{source}: out_channels: it must be in_channels; a learned variance has no place in a pipeline"
        )
    size, channels = unet.get("sample_size"), keys.get("in_channels", 3, int)
    height, width = size if isinstance(size, list) and len(size) == 2 else (size, size)
    if not all(type(n) is int and 1 <= n <= 65536 for n in (channels, height, width)):
        raise FormatError(f"{source}: sample_size: {str(size)[:60]!r} gives no size of an image")
    return card_of(
        files,
        "diffusion",
        "A diffusion model in the layout of diffusers",
        shape=(channels, height, width),
        config=config,
        options={"steps": sampling.steps, "scheduler": sampling.scheduler},
        paper="Denoising diffusion probabilistic models, arXiv:2006.11239",
    )


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
