"""The shipped diffusion model sampled by diffusers: its network, its schedulers, and the loop that its users write."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import diffusers
import torch
from measured import Setting
from peers import ARCHITECTURES
from sampling import Bench
from torch import Tensor

from genzoo.errors import OptionError
from genzoo.spec import parse

#: Our scheduler -> diffusers' class and its settings.
CLASSES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "ddpm": ("DDPMScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpm-2": ("KDPM2DiscreteScheduler", {}),
    "dpmpp-1s": ("DPMSolverMultistepScheduler", {"solver_order": 1}),
    "dpmpp-2m": ("DPMSolverMultistepScheduler", {"solver_order": 2}),
    "dpmpp-3m": ("DPMSolverMultistepScheduler", {"solver_order": 3}),
    "dpmpp-2m-sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "deis": ("DEISMultistepScheduler", {}),
    "lms": ("LMSDiscreteScheduler", {}),
    "plms": ("PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": True}),
    "pndm": ("PNDMScheduler", {"set_alpha_to_one": True}),
}

#: Our spacings that are diffusers' too, in its words; whole times by their own name.
RAMPS = {"karras": {"use_karras_sigmas": True}, "log-snr": {"use_exponential_sigmas": True}}

#: The shipped model's schedule and prediction in its words.
MODEL = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction", "num_train_timesteps": 1000}


def their_scheduler(spec: str, clips: bool) -> Any:
    """diffusers' scheduler for one of ours.

    Args:
        spec: as "unipc:spacing=trailing,order=3".
        clips: x_0 is clamped to [-1, 1], by clip_sample or, where that is missing, by thresholding at a fixed 1.

    Raises OptionError where it has none.
    """
    name, options = parse(spec, "scheduler")
    if name not in CLASSES:
        raise OptionError(f"diffusers has no {name}; give one of {', '.join(CLASSES)}")
    title, fixed = CLASSES[name]
    kind = getattr(diffusers, title)
    known = set(inspect.signature(kind.__init__).parameters)
    spacing = str(options.get("spacing", "leading"))
    given = {**MODEL, **fixed, **RAMPS.get(spacing, {"timestep_spacing": spacing})}
    if "order" in options:
        given["solver_order"] = options["order"]
    if name != "dpmpp-3m" and "variant" in options:
        given["solver_type"] = options["variant"]
    if clips:
        given |= {"clip_sample": True} if "clip_sample" in known else {"thresholding": True, "sample_max_value": 1.0}
    elif "clip_sample" in known:
        given["clip_sample"] = False
    missing = sorted(set(given) - known)
    if missing:
        raise OptionError(f"diffusers' {title} has no {', '.join(missing)}, which {spec!r} needs")
    return kind(**given)


class Peer:
    """The model in diffusers: a UNet2DModel, a scheduler of the library, and its users' loop over timesteps.

    Args:
        weights: of the shipped model's network.
        classes: that it knows; the row after them stands for none.
    """

    def __init__(self, weights: Mapping[str, Tensor], classes: int) -> None:
        self.network = diffusers.UNet2DModel(**ARCHITECTURES["ddpm.fashion-mnist"], num_class_embeds=classes + 1)
        self.network.load_state_dict(dict(weights), strict=True)
        self.network.eval().requires_grad_(False)
        self.classes = classes

    @torch.no_grad()
    def generate(self, scheduler: Any, steps: int, seeds: Sequence[int], labels: Sequence[int], scale: float) -> Tensor:
        """Images, float32 (N, 1, 28, 28) in [-1, 1]; a scale other than 1 guides, by a batch of twice the size."""
        streams = [torch.Generator().manual_seed(seed) for seed in seeds]
        x = torch.cat([torch.randn(1, 1, 28, 28, generator=stream) for stream in streams])
        scheduler.set_timesteps(steps)
        x = torch.nn.functional.pixel_unshuffle(x, 2) * scheduler.init_noise_sigma
        wanted = torch.tensor(labels)
        both = torch.cat([torch.full_like(wanted, self.classes), wanted])
        draws = {"generator": streams} if "generator" in inspect.signature(scheduler.step).parameters else {}
        for t in scheduler.timesteps:
            given = scheduler.scale_model_input(x, t)
            if scale == 1:
                out = self.network(given, t, class_labels=wanted).sample
            else:
                free, aimed = self.network(torch.cat([given, given]), t, class_labels=both).sample.chunk(2)
                out = free + scale * (aimed - free)
            x = scheduler.step(out, t, x, **draws).prev_sample
        return torch.nn.functional.pixel_shuffle(x, 2).clamp(-1, 1)


class PeerBench(Bench):
    """A bench whose images diffusers makes; ``clips`` as for ``their_scheduler``."""

    def __init__(self, *given: Any, clips: bool, **more: Any) -> None:
        super().__init__(*given, **more)
        self.clips = clips
        self.maker = "diffusers-clipped-" if clips else "diffusers-"
        self.peer = Peer(self.model.denoiser.network.state_dict(), self.model.num_classes)

    def images(self, setting: Setting, seeds: Sequence[int], labels: Sequence[int] | None) -> Tensor:
        scheduler = their_scheduler(setting.scheduler, self.clips)
        return self.peer.generate(scheduler, setting.steps, seeds, labels or [], float(setting.guidance))
