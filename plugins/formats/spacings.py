"""How the times of a walk lie in scheduler_config.json: timestep_spacing, steps_offset and the ramps of sigma."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from genzoo.errors import shorten
from genzoo.formats import FormatError
from genzoo_plugins.formats.keys import Keys
from genzoo_plugins.formats.rows import Given, said

#: The largest steps_offset: schedulers take no larger one.
MAX_OFFSET = 1000

#: Keys that replace the spacing by a ramp of sigma / alpha, with ours.
RAMPS = {"use_karras_sigmas": "karras", "use_exponential_sigmas": "exponential", "use_beta_sigmas": "beta-sigma"}

#: A ramp over all the schedule.
UNBOUNDED = "sigma_min=null,sigma_max=null"

OUT_OF_STEP = (
    "its steps there end between the times of its own grid, so that its mean is of other times than it takes them for; "
    "write 'leading'"
)
CUT = (
    "the library cuts the times that it finds for it down to whole ones, so that its rounding errors decide which; "
    "write false, or use_karras_sigmas"
)


@dataclass(frozen=True)
class Times:
    """How the times of a scheduler class lie.

    Attributes:
        plain: timestep_spacing -> our options, of the spacings that are understood.
        ramped: timestep_spacing -> our options beside a ramp's own; empty for a class that knows no ramps.
        between: what a schedule interpolates in sigma / alpha between whole times, without a ramp and with one.
        told: what a network is told of a ramp's times.
        default: the class's own spacing.
        fixed: it knows no other, and no offset.
        refused: spacings and ramps that are not understood, with what is in the way and what to write.
    """

    plain: Mapping[str, str]
    ramped: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    between: tuple[str, str] = ("angle", "log-ratio")
    told: str = "exact"
    default: str = "linspace"
    fixed: bool = False
    refused: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def read(self, keys: Keys) -> tuple[list[str], dict[str, Any]]:
        """Our options, and what the schedule is told beside its levels."""
        spacing = self.default if self.fixed else keys.get("timestep_spacing", self.default, str)
        offset = 0 if self.fixed else keys.get("steps_offset", 0, int)
        if not 0 <= offset <= MAX_OFFSET:
            raise FormatError(
                f"{keys.source}: steps_offset: {shorten(str(offset), 60)} is not supported; 0 to {MAX_OFFSET} are"
            )
        ramps = [key for key in RAMPS if self.ramped and keys.get(key, False, (bool, type(None)))]
        if len(ramps) > 1:
            raise FormatError(f"{keys.source}: {' and '.join(ramps)}: one at most can be true")
        for key, value in (("timestep_spacing", spacing), *((key, key) for key in ramps)):
            if value in self.refused:
                raise FormatError(
                    f"{keys.source}: {key}: {keys.data.get(key, value)!r} is not supported; {self.refused[value]}"
                )
        for bound in ("sigma_min", "sigma_max"):
            keys.seen.add(bound)
            if ramps:
                keys.refuse(
                    bound, None, why="it may lie beyond the schedule; write null, and give genzoo's scheduler it"
                )
        known = self.ramped if ramps else self.plain
        if spacing not in known:
            raise FormatError(
                f"{keys.source}: timestep_spacing: {spacing[:60]!r} is not supported; these are: {', '.join(known)}"
            )
        options = [f"spacing={RAMPS[ramps[0]]},{UNBOUNDED}"] if ramps else []
        options += filter(None, [known[spacing]])
        # The library adds it to leading times alone; a ramp of its own ends is not of those.
        if offset and spacing == "leading" and (not ramps or "ends=leading" in known[spacing]):
            options.append(f"offset={offset}")
        between = {"between": self.between[bool(ramps)], "told": self.told if ramps else "exact"}
        return options, {key: value for key, value in between.items() if value not in ("angle", "exact")}

    def write(self, given: Given) -> dict[str, Any]:
        """The keys that say what is taken out of ``given``."""
        out: dict[str, Any] = {"steps_offset": int(given.pop("offset", 0))}
        ramp = next((key for key, ours in RAMPS.items() if self.ramped and given.get("spacing") == ours), None)
        if ramp:
            for name in ("spacing", "sigma_min", "sigma_max"):
                given.pop(name, None)
            out[ramp] = True
        # Without a word for it, the class's own: whoever reads it back finds the difference.
        return out | {"timestep_spacing": said(self.ramped if ramp else self.plain, given) or self.default}


#: DDPM: whole times.
WHOLE = Times({"leading": "", "trailing": "spacing=trailing", "linspace": "spacing=linspace"}, default="leading")

#: DDIM: likewise, but every step ends T // steps below its time; a leading grid has that stride by itself.
STRIDED = Times(
    {"leading": "", "trailing": "spacing=trailing,stride=even", "linspace": "spacing=linspace,stride=even"},
    default="leading",
)

#: PNDM, whose means assume such a stride.
PSEUDO = Times(
    {"leading": "spacing=leading"},
    default="leading",
    refused={"linspace": OUT_OF_STEP, "trailing": OUT_OF_STEP},
)

#: The multistep solvers in log-SNR: whole times; a ramp's levels are exact, but the network is told whole times.
INNER = Times(
    {
        "linspace": "spacing=linspace,inner=true",
        "leading": "spacing=leading,inner=true",
        "trailing": "spacing=trailing",
    },
    {"linspace": "", "leading": "", "trailing": ""},
    told="nearest",
    refused={"use_exponential_sigmas": CUT, "use_beta_sigmas": CUT},
)

#: DPMSolverSinglestepScheduler: likewise, on linspace alone.
ALONE = replace(INNER, plain={"linspace": INNER.plain["linspace"]}, fixed=True)

#: The solvers in sigma / alpha: times between, and noise that a walk begins with scaled to its level.
RATIOS = Times(
    {
        "linspace": f"spacing=even,{UNBOUNDED},start=level",
        "leading": "spacing=leading",
        "trailing": "spacing=trailing,start=level",
    },
    {"linspace": "start=level", "leading": "ends=leading", "trailing": "ends=trailing,start=level"},
    between=("ratio", "log-ratio"),
)

#: KDPM2, which evaluates halfway in log-SNR too: a level between is found by its logarithm there, and in itself above.
MIDWAY = Times(
    {"leading": "spacing=leading", "trailing": "spacing=trailing,start=level"},
    RATIOS.ramped,
    between=("log-ratio", "log-ratio"),
    refused={
        "linspace": "the levels between two whole times are interpolated in two ways in one walk; write 'trailing'",
        "use_karras_sigmas": "it rounds some of the times that its network is told, and not the others; write false",
    },
)
