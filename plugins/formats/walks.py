"""A card's walk as the diffusers library says it: the pipeline, and its scheduler_config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genzoo.cards import Card
from genzoo.errors import GenzooError, shorten
from genzoo.formats import FormatError
from genzoo.registry import Zoo
from genzoo.schedule import ScheduleConfig
from genzoo.scheduler import Scheduler
from genzoo.spec import describe
from genzoo_plugins.formats.pipeline import VERSION
from genzoo_plugins.formats.rows import Given, said, split
from genzoo_plugins.formats.samplers import SAMPLERS, Sampler
from genzoo_plugins.formats.sampling import KINDS, PREDICTIONS, read_scheduler

#: Registered scheduler -> the class that walks as it does, of those that a pipeline of one U-Net takes.
CLASSES = {name: kind for kind, sampler in SAMPLERS.items() if sampler.pipeline for name in sampler.names}


@dataclass(frozen=True)
class Written:
    """What the library needs to walk as a card does.

    Attributes:
        pipeline: the class of the pipeline.
        scheduler: scheduler_config.json.
        arguments: what the pipeline is called with beside the seeds.
    """

    pipeline: str
    scheduler: dict[str, Any]
    arguments: dict[str, Any]

    @classmethod
    def of(cls, card: Card, zoo: Zoo) -> Written:
        """What the library needs of a card whose scheduler is looked up in the zoo.

        What is written is read again: where that is not the card's own walk, the layout has no words for it."""
        schedule = card.config.get("schedule") or {}
        for told in (schedule.get("kind"), card.config.get("prediction")):
            if told in ("flow", "edm"):
                raise FormatError(
                    f"{card.name}: schedule or prediction {told!r} is not written in this layout; write 'genzoo'"
                )
        made = _scheduler(card, schedule, zoo)
        name, _, options = describe(made, zoo).partition(":")
        if name not in CLASSES:
            raise FormatError(
                f"{card.name}: its scheduler {name!r} is not written in this layout, whose pipelines of one U-Net have "
                f"none like it; these are: {', '.join(sorted(CLASSES))}"
            )
        kind = CLASSES[name]
        sampler, given, clip = SAMPLERS[kind], split(options), card.config.get("clip", 1.0)
        clip = float(given.pop("clip", clip)) if clip is not None or "clip" in given else None
        out = {"_class_name": kind, "_diffusers_version": VERSION, **_schedule(card, schedule), "thresholding": False}
        if sampler.clips is not None:
            out |= {"clip_sample": clip is not None, "clip_sample_range": 1.0 if clip is None else clip}
        out |= dict(zip(sampler.by, said(sampler.variants(name), given) or (), strict=False))
        if sampler.times:
            out |= sampler.times.write(given)
        out |= {row.key: row.write(given) for row in sampler.rows if not row.only or name in row.only}
        _check_same(card, out, made, sampler, zoo)
        return cls(sampler.pipeline, out, _arguments(card, sampler, split(options)))


def _arguments(card: Card, sampler: Sampler, given: Given) -> dict[str, Any]:
    """The arguments of the pipeline that say what its scheduler's file has no word for."""
    out: dict[str, Any] = {"num_inference_steps": card.options.get("steps", 50)}
    if "eta" in sampler.arguments and "eta" in given:
        out["eta"] = float(given["eta"])
    # Clipped by the model, and not as the library does it by itself.
    if "clip" in sampler.arguments and "clip" not in given and card.config.get("clip", 1.0) is not None:
        out["use_clipped_model_output"] = True
    return out


def _scheduler(card: Card, schedule: Mapping[str, Any], zoo: Zoo) -> Scheduler:
    """The card's scheduler, with the options that are not its own by default alone."""
    try:
        made: Scheduler = zoo.make("scheduler", str(card.options.get("scheduler", "ddim")))
    except GenzooError as error:
        raise FormatError(f"{card.name}: {error}") from None
    fields = type(made).model_fields
    given = {name: value for name, value in made if value != fields[name].default}
    whole = not schedule.get("steps", 1000) % card.options.get("steps", 50)
    if "stride" in fields and made.spacing == "trailing" and whole:
        # Where T / steps is whole, steps end where the next begin either way.
        given["stride"] = "even"
    return type(made)(**given)


def _schedule(card: Card, schedule: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the levels, and of what the network predicts."""
    words, kind = {ours: theirs for theirs, ours in KINDS.items()}, schedule.get("kind", "linear")
    return {
        "num_train_timesteps": schedule.get("steps", 1000),
        "beta_start": schedule.get("beta_start", 1e-4),
        "beta_end": schedule.get("beta_end", 0.02),
        "beta_schedule": words.get(kind, "linear"),
        "trained_betas": schedule["betas"] if kind == "listed" else None,
        "rescale_betas_zero_snr": schedule.get("zero_terminal_snr", False),
        "prediction_type": {ours: theirs for theirs, ours in PREDICTIONS.items()}[card.config.get("prediction", "eps")],
    }


def _check_same(card: Card, out: Mapping[str, Any], made: Scheduler, sampler: Sampler, zoo: Zoo) -> None:
    """Refuse what is read back as another walk, by the option that makes it one."""
    read = read_scheduler(out, card.name)
    back = zoo.make("scheduler", read.scheduler)
    pairs = [(name, value, getattr(back, name, None)) for name, value in made if name not in sampler.arguments]
    schedule = ScheduleConfig(**read.schedule)
    before = ScheduleConfig(**(card.config.get("schedule") or {}))
    pairs += [(name, value, getattr(schedule, name)) for name, value in before]
    pairs.append(("prediction", card.config.get("prediction", "eps"), read.prediction))
    if "clip" not in sampler.arguments:
        pairs.append(("clip", card.config.get("clip", 1.0), read.clip))
    other = next(((name, value) for name, value, found in pairs if value != found), None)
    if other is None:
        return
    name, value = other
    known = [text for text in sampler.times.plain.values() if name in split(text)] if sampler.times else []
    raise FormatError(
        f"{card.name}: {name}={shorten(str(value), 60)} is not written in this layout, which has no word for it with "
        f"{out['_class_name']}; " + (f"these are: {'; '.join(known)}" if known else "change that, or write 'genzoo'")
    )
