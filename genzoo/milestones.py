"""Milestones: how a training run stood on the way, as its log tells and as a card keeps. Light: never imports torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from genzoo.frozen import Count, Frozen, Number


class Milestone(Frozen):
    """How a training run stood.

    Attributes:
        step: steps done.
        seconds: of training so far.
        scores: measured values by metric, where they were measured.
        losses: logged values by name, where they were logged.
    """

    step: Count
    seconds: Number
    scores: dict[str, Number] = Field(default_factory=dict)
    losses: dict[str, Number] = Field(default_factory=dict)


def read_log(path: Path) -> tuple[Milestone, ...]:
    """The milestones of a run's log.jsonl, by step; a line that a kill cut short ends it. Empty where there is no file.

    A line with images_per_second tells losses, any other one what was measured; the latter may leave the time out,
    which is then that of the line before.
    """
    found: dict[int, dict[str, Any]] = {}
    seconds = 0.0
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
            step, seconds = record.pop("step"), record.pop("seconds", seconds)
        except (ValueError, KeyError):
            break
        kind = "losses" if record.pop("images_per_second", None) is not None else "scores"
        found.setdefault(step, {"step": step, "seconds": seconds})[kind] = record
    return tuple(Milestone(**found[step]) for step in sorted(found))


def measured(milestones: Sequence[Milestone]) -> tuple[Milestone, ...]:
    """Those with scores, without the losses, to five digits: a curve for a card."""
    return tuple(
        Milestone(step=m.step, seconds=m.seconds, scores={name: float(f"{v:.5g}") for name, v in m.scores.items()})
        for m in thinned([m for m in milestones if m.scores])
    )


def thinned(milestones: Sequence[Milestone], most: int = 400) -> tuple[Milestone, ...]:
    """At most so many of them, evenly spaced, the last one always: a curve that fits into a file."""
    every = -(-len(milestones) // most) or 1
    return tuple(milestones[::-1][::every][::-1])
