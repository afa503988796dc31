"""A pipeline of diffusers as a generator: its own code from noise to pixels, under genzoo's seeds and options."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from genzoo.errors import OptionError, WeightsError
from genzoo.frozen import Frozen, Real
from genzoo.generator import Generator, Options
from genzoo.noise import Noise

#: A part's settings by its name; None where the pipeline has no such part.
Settings = Callable[[str], Mapping[str, Any] | None]


class PipelineOptions(Options):
    """What a pipeline can be asked per call; what is left out is the pipeline's own default."""

    steps: Annotated[int, Field(ge=1, le=100_000, description="num_inference_steps")] | None = None
    guidance: Annotated[Real, Field(description="guidance_scale")] | None = None
    prompt: Annotated[str, Field(max_length=10_000, description="for a pipeline that takes a text")] | None = None


#: PipelineOptions' field -> the pipeline's own keyword.
KEYWORDS = {"steps": "num_inference_steps", "guidance": "guidance_scale", "prompt": "prompt"}


def image_shape(settings: Settings) -> tuple[int, int, int]:
    """(C, H, W) of a pipeline's images: its denoiser's sample, through the decoder where it has one."""
    denoiser = settings("unet") or settings("transformer")
    if denoiser is None or not denoiser.get("sample_size"):
        raise WeightsError("this pipeline has no unet or transformer with a sample_size, so its images have no shape")
    size = denoiser["sample_size"]
    height, width = (size, size) if isinstance(size, int) else size
    decoder = settings("vae") or settings("vqvae") or settings("movq")
    if decoder is None:
        return int(denoiser["in_channels"]), int(height), int(width)
    scale = 2 ** (len(decoder["block_out_channels"]) - 1)
    return int(decoder["out_channels"]), int(height) * scale, int(width) * scale


class Pipeline(Generator):
    """A loaded pipeline. It cannot be built from a config: ``diffusers:`` names are loaded by that library."""

    Options: ClassVar[type[Options]] = PipelineOptions

    def __init__(self, pipeline: Any) -> None:
        if isinstance(pipeline, Frozen):
            raise OptionError("a pipeline of diffusers is loaded by name, as diffusers:FOLDER, not built")
        super().__init__(Frozen())
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline = pipeline
        parts = {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
        self.parts = nn.ModuleDict(parts)
        self.known = set(inspect.signature(pipeline.__call__).parameters)
        self._shape = image_shape(self._settings)

    def _settings(self, part: str) -> Mapping[str, Any] | None:
        found = self.pipeline.components.get(part)
        return None if found is None else found.config

    @property
    def shape(self) -> tuple[int, int, int]:
        return self._shape

    @property
    def num_classes(self) -> int:
        if "class_labels" not in self.known:
            return 0
        return int((self._settings("transformer") or self._settings("unet") or {}).get("num_embeds_ada_norm") or 0)

    def keywords(self, options: PipelineOptions) -> dict[str, Any]:
        """The options in the pipeline's own words; raises OptionError for one that it does not take."""
        given = {KEYWORDS[key]: getattr(options, key) for key in KEYWORDS if getattr(options, key) is not None}
        for key, word in KEYWORDS.items():
            if word in given and word not in self.known:
                raise OptionError(f"{type(self.pipeline).__name__} takes no {word}; leave {key} out")
        return given

    def sample(self, noise: Noise, options: Any) -> Iterator[Tensor]:
        if noise.given is not None:
            raise OptionError("a pipeline of diffusers draws its own noise from the seeds; leave noise out")
        words = self.keywords(options)
        if options.labels is not None:
            words["class_labels"] = list(options.labels)
        elif "prompt" in words:
            words["prompt"] = [words["prompt"]] * len(noise)
        elif "batch_size" in self.known:
            words["batch_size"] = len(noise)
        # One stream a seed, as genzoo draws: the first numbers are the same in both libraries.
        words["generator"] = [torch.Generator().manual_seed(seed) for seed in noise.seeds]
        images = torch.from_numpy(self.pipeline(output_type="np", **words).images)
        yield images.permute(0, 3, 1, 2).mul(2).sub(1).to(self.device)

    def nfe(self, options: Any) -> float:
        scheduler = copy.deepcopy(getattr(self.pipeline, "scheduler", None))
        if scheduler is None or "num_inference_steps" not in self.known:
            return 1
        parameters = inspect.signature(self.pipeline.__call__).parameters
        steps = self._value(options.steps, parameters, "num_inference_steps")
        scheduler.set_timesteps(int(steps))
        guidance = self._value(options.guidance, parameters, "guidance_scale") if "guidance_scale" in parameters else 1
        # A method of two evaluations a step lists each of them as a timestep of its own.
        return len(scheduler.timesteps) * (2 if guidance > 1 else 1)

    @staticmethod
    def _value(given: float | None, parameters: Mapping[str, inspect.Parameter], name: str) -> float:
        return float(parameters[name].default) if given is None else float(given)
