"""scheduler_config.json of the diffusers library: the noise schedule and the scheduler, read and written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genzoo.cards import Card
from genzoo.errors import shorten
from genzoo.formats import FormatError
from genzoo_plugins.formats.keys import Keys
from genzoo_plugins.formats.pipeline import IDLE, VERSION
from genzoo_plugins.formats.samplers import KNOWN, SAMPLERS, Asked

KINDS = {"linear": "linear", "scaled_linear": "scaled-linear", "squaredcos_cap_v2": "cosine"}
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
SPACINGS = {word: word for word in ("leading", "trailing", "linspace")}

#: The largest steps_offset: schedulers take no larger one.
MAX_OFFSET = 1000


@dataclass(frozen=True)
class Sampling:
    """What a scheduler's file says, in genzoo's words."""

    schedule: dict[str, Any]
    prediction: str
    clip: float | None
    scheduler: str
    steps: int


def read_scheduler(data: Mapping[str, Any], source: str, kind: str | None = None) -> Sampling:
    """A scheduler_config.json with every key honoured, or refused by its name.

    ``kind`` is the class that the pipeline makes of whatever the file names; without it, the file's own.
    """
    keys, name = Keys(data, source, IDLE | KNOWN), kind or str(data.get("_class_name", "DDPMScheduler"))
    if name not in SAMPLERS:
        raise FormatError(
            f"{source}: _class_name: {name[:60]!r} is not supported; these are: {', '.join(SAMPLERS)}; write one "
            "of them into a copy of the folder"
        )
    sampler, schedule = SAMPLERS[name], _schedule(keys)
    schedule["zero_terminal_snr"] = sampler.zero_snr and keys.get("rescale_betas_zero_snr", False, bool)
    prediction = keys.choose("prediction_type", "epsilon", PREDICTIONS)
    # What older files call the same.
    keys.refuse("predict_epsilon", True)
    if sampler.thresholds:
        keys.refuse("thresholding", False, None)
    clips = sampler.clips and keys.get("clip_sample", True, bool)
    clip = keys.get("clip_sample_range", 1.0, float) if clips else None
    if schedule["zero_terminal_snr"] and prediction == "eps":
        raise FormatError(
            f"{source}: rescale_betas_zero_snr: a prediction of eps says nothing about the image where there is only "
            "noise; v_prediction and sample are supported"
        )
    spacing = keys.choose("timestep_spacing", sampler.spacing, SPACINGS)
    offset = keys.get("steps_offset", 0, int)
    if not 0 <= offset <= MAX_OFFSET:
        raise FormatError(f"{source}: steps_offset: {shorten(str(offset), 60)} is not supported; 0 to {MAX_OFFSET} are")
    asked = Asked(prediction, clip, spacing, offset)
    scheduler, options, steps = sampler.read(keys, asked)
    keys.finish()
    spec = ":".join(filter(None, [scheduler, ",".join(options)]))
    return Sampling(schedule, prediction, clip, spec, min(steps, schedule["steps"]))


def _schedule(keys: Keys) -> dict[str, Any]:
    keys.seen.add("timesteps")
    old = keys.data.get("timesteps", 1000)
    steps = keys.get("num_train_timesteps", old, int)
    start, end = keys.get("beta_start", 1e-4, float), keys.get("beta_end", 0.02, float)
    word = keys.get("beta_schedule", "linear", str)
    out: dict[str, Any] = {"steps": steps}
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


def scheduler_file(card: Card) -> dict[str, Any]:
    """scheduler_config.json of a card: its schedule, and the scheduler among its options."""
    name, _, rest = str(card.options.get("scheduler", "ddim")).partition(":")
    given = dict(part.partition("=")[::2] for part in rest.split(",") if part)
    if name not in ("ddim", "ddpm"):
        raise FormatError(f"{card.name}: its scheduler {name!r} is not written in this layout; ddim and ddpm are")
    schedule, clip = card.config.get("schedule") or {}, card.config.get("clip", 1.0)
    words = {ours: theirs for theirs, ours in KINDS.items()}
    kind = schedule.get("kind", "linear")
    if "flow" in (kind, card.config.get("prediction")):
        raise FormatError(f"{card.name}: a flow schedule or prediction is not written in this layout; write 'genzoo'")
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
        "timestep_spacing": _spacing_file(card, name, given),
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


def _spacing_file(card: Card, name: str, given: dict[str, str]) -> str:
    """timestep_spacing of a card, whose scheduler's options lose what it says."""
    spacing, stride = given.pop("spacing", "leading"), given.pop("stride", "grid")
    if spacing not in SPACINGS:
        raise FormatError(f"{card.name}: spacing={spacing} is not written in this layout; {', '.join(SPACINGS)} are")
    length = (card.config.get("schedule") or {}).get("steps", 1000)
    even = (
        stride == "even"
        or spacing == "leading"
        or (spacing == "trailing" and not length % card.options.get("steps", 50))
    )
    if name == "ddim" and not even:
        raise FormatError(
            f"{card.name}: spacing={spacing} is written in this layout with stride=even alone: DDIMScheduler ends its "
            "steps elsewhere than the next begin"
        )
    return spacing
