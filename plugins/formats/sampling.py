"""scheduler_config.json of the diffusers library, read: the noise schedule and the scheduler."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genzoo.errors import OptionError, shorten
from genzoo.formats import FormatError
from genzoo.schedule import ScheduleConfig
from genzoo_plugins.formats.keys import Keys
from genzoo_plugins.formats.pipeline import IDLE
from genzoo_plugins.formats.rows import Clash, Refused
from genzoo_plugins.formats.samplers import KNOWN, SAMPLERS, Sampler

KINDS = {"linear": "linear", "scaled_linear": "scaled-linear", "squaredcos_cap_v2": "cosine"}
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


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
    sampler = SAMPLERS[name]
    keys.seen |= sampler.idle
    schedule = _schedule(keys, sampler)
    prediction = keys.choose("prediction_type", "epsilon", PREDICTIONS)
    # What older files call the same.
    keys.refuse("predict_epsilon", True)
    if sampler.thresholds:
        keys.refuse("thresholding", False, None, why="each image would be clipped by its own brightness; write false")
    clip = None
    if sampler.clips is not None:
        limit = keys.get("clip_sample_range", 1.0, float)
        clip = limit if keys.get("clip_sample", sampler.clips, bool) else None
    if schedule["zero_terminal_snr"] and prediction == "eps":
        raise FormatError(
            f"{source}: rescale_betas_zero_snr: a prediction of eps says nothing about the image where there is only "
            "noise; v_prediction and sample are supported"
        )
    spec, told = _method(keys, sampler, clip)
    keys.finish()
    return Sampling(schedule | told, prediction, clip, spec, min(sampler.steps, schedule["steps"]))


def _method(keys: Keys, sampler: Sampler, clip: float | None) -> tuple[str, dict[str, Any]]:
    """The scheduler, with its options, and what the schedule is told of its times."""
    chosen = tuple(keys.get(key, default, type(default)) for key, default in sampler.by.items())
    if chosen not in sampler.methods:
        asked = " with ".join(
            f"{key}: {shorten(str(value), 60)}" for key, value in zip(sampler.by, chosen, strict=True)
        )
        known = ", ".join(" with ".join(map(str, each)) for each in sampler.methods)
        raise FormatError(f"{keys.source}: {asked} is not supported; these are: {known}")
    name, _, fixed = sampler.methods[chosen].partition(":")
    options, told = sampler.times.read(keys) if sampler.times else ([], {})
    if clip is not None and sampler.keeps_eps:
        options.append(f"clip={clip}")
    # Read, whatever the method, so that values of no sense are refused.
    read = [(row, row.read(keys)) for row in sampler.rows]
    options += [row.option(value) for row, value in read if not row.only or name in row.only]
    checks: tuple[Refused | Clash, ...] = (*sampler.refused, *sampler.clashes)
    for check in checks:
        check.check(keys)
    return ":".join(filter(None, [name, ",".join(filter(None, [*options, fixed]))])), told


def _schedule(keys: Keys, sampler: Sampler) -> dict[str, Any]:
    """What a schedule's config takes."""
    out = _betas(keys, sampler)
    out["zero_terminal_snr"] = sampler.terminal is not None and keys.get("rescale_betas_zero_snr", False, bool)
    if not (out["zero_terminal_snr"] and sampler.terminal):
        return out
    out["terminal"] = sampler.terminal
    try:
        ScheduleConfig(**out).build()
    except OptionError:
        raise FormatError(
            f"{keys.source}: rescale_betas_zero_snr: True is not supported with this schedule, whose last levels would "
            f"not fall: the library sets the last to 2^-24, above the one before; write DDIMScheduler"
        ) from None
    return out


def _betas(keys: Keys, sampler: Sampler) -> dict[str, Any]:
    keys.seen.add("timesteps")
    old = keys.data.get("timesteps", 1000)
    steps = keys.get("num_train_timesteps", old, int)
    start, end = (keys.get(name, sampler.betas[i], float) for i, name in enumerate(("beta_start", "beta_end")))
    word = keys.get("beta_schedule", sampler.betas[2], str)
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
    kind = keys.choose("beta_schedule", sampler.betas[2], {**KINDS, "sigmoid": ""})
    return {**out, "kind": kind, "beta_start": start, "beta_end": end}


def _sigmoid(steps: int, start: float, end: float) -> list[float]:
    """beta_k = start + (end - start) / (1 + exp(-u_k)), u from -6 to 6 (Xu et al. 2022, GeoDiff)."""
    places = [-6 + 12 * k / max(steps - 1, 1) for k in range(steps)]
    return [start + (end - start) / (1 + math.exp(-u)) for u in places]
