"""Control against quality: every registered guidance at several strengths, on the shipped diffusion model.

python benchmarks/guidance.py --budget 60m                measure, and write the files
python benchmarks/guidance.py --curves "apg; threshold"   some of the curves; the file's others stand
python benchmarks/guidance.py --budget 1s                 write the files from what was measured so far

It may be stopped and started again at any time; see sampling.py. Threads are torch's own (OMP_NUM_THREADS). Writes
results/guidance.json with what was measured, and its table (.md) and plot (.svg) beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import click
from guidance_page import COLUMNS, markdown, svg
from measured import Measured, Setting
from pydantic import Field
from sampling import Bench, Spent

from genzoo.bench import now
from genzoo.cli.arguments import parse_duration
from genzoo.frozen import Frozen, Label, Number, Seq
from genzoo.metric import Estimate, Metric
from genzoo.registry import default_zoo

HERE = Path(__file__).parent

#: Intervals, labels and notes are chosen for it and its data.
MODEL = "ddpm.fashion-mnist"

#: The walk of all curves but those of cfgpp, whose identity holds for a first-order solver, and of its neighbour.
WALK, FIRST_ORDER, STEPS = "unipc:spacing=trailing", "ddim:spacing=trailing", 10

PLAIN = "1"
SCALES = (1.5, 2.0, 3.0, 5.0)


class Family(NamedTuple):
    """A guidance whose strength is turned up.

    Attributes:
        spec: a registered name with options, {} standing for the strength.
        scheduler: of the walk.
        strengths: in order.
        plain: whether it nears the plain model as it is turned down, so that its curve begins there.
    """

    spec: str
    scheduler: str = WALK
    strengths: Sequence[float] = SCALES
    plain: bool = True


#: By the name of the curve.
FAMILIES = {
    "cfg": Family("cfg:scale={}"),
    "rescaled": Family("rescaled:scale={}"),
    "interval": Family("interval:scale={},low=0.3,high=5"),
    "apg": Family("apg:scale={}"),
    "cfg-zero-star": Family("cfg-zero-star:scale={}", plain=False),
    "threshold": Family("chain:parts=cfg:scale={}+threshold", plain=False),
    # A shirt is what the classes that are hard to tell apart are taken for.
    "negative": Family("negative:scale={},labels=6"),
    "classifier": Family("classifier:extractor=fashion-classifier,scale={}", strengths=(0.25, 0.5, 1.0, 2.0)),
    "chain": Family("chain:parts=apg:scale={}+interval:low=0.3;high=5+threshold", plain=False),
    "autoguidance": Family("autoguidance:model=ddpm.fashion-mnist-weak,scale={}", strengths=(1.25, 1.5, 2.0, 3.0)),
    "cfg, ddim": Family("cfg:scale={}", FIRST_ORDER),
    "cfgpp, ddim": Family("cfgpp:scale={}", FIRST_ORDER, (0.4, 0.6, 0.8, 1.0), plain=False),
}

#: What is registered and has no curve.
LEFT_OUT = {"none": "it is the plain model"}


class Reading(Frozen):
    """A point of a curve.

    Attributes:
        curve: a name of ``FAMILIES``.
        strength: of the guidance; null for the plain model, which is measured once for each scheduler.
        setting: of the sampling.
        nfe: evaluations of the network per image.
        scores: metric -> what it says, each with its interval and in its own unit.
        made: when, ISO 8601, UTC; null where it was with the file, as all were before readings were carried over.
    """

    curve: Label
    strength: Number | None
    setting: Setting
    nfe: Number
    scores: dict[str, Estimate]
    made: Label | None = None


class Control(Measured):
    """The curves.

    Attributes:
        readings: by curve and strength.
        plain: curves that begin at the plain model on their scheduler.
        left_out: guidance -> why it has no curve.
    """

    format: Literal["genzoo.guidance/2"] = "genzoo.guidance/2"
    readings: Seq[Reading] = Field(min_length=1)
    plain: Seq[Label]
    left_out: dict[str, str] = Field(default_factory=dict)


def settings(names: Sequence[str]) -> Iterator[tuple[str, float | None, Setting]]:
    """(curve, strength, setting): the plain models, then the weakest of every curve, and so on."""
    for scheduler, name in {FAMILIES[name].scheduler: name for name in reversed(names)}.items():
        yield name, None, Setting(scheduler=scheduler, steps=STEPS, guidance=PLAIN)
    for turn in range(max(len(FAMILIES[name].strengths) for name in names)):
        for name in names:
            family = FAMILIES[name]
            if turn < len(family.strengths):
                strength = family.strengths[turn]
                guidance = family.spec.format(f"{strength:g}")
                yield name, strength, Setting(scheduler=family.scheduler, steps=STEPS, guidance=guidance)


def earlier(path: Path, bench: Bench, n: int) -> dict[Setting, Reading]:
    """What was read with ``n`` images before, from the file that is about to be replaced.

    Only what would be read today: of the same settings, and by all of today's metrics.
    """
    before = Control.before(path, bench, n)
    if before is None:
        return {}
    today = {setting: name for name, _, setting in settings(list(FAMILIES))}
    return {
        reading.setting: reading.model_copy(
            update={"curve": today[reading.setting], "made": reading.made or before.made}
        )
        for reading in before.readings
        if reading.setting in today and reading.scores.keys() == COLUMNS.keys()
    }


def readings(bench: Bench, names: Sequence[str], n: int, known: Mapping[Setting, Reading]) -> Iterator[Reading]:
    """The points of the curves, ``known`` ones without making an image; raises Spent where the time is up."""
    metrics: dict[str, Metric] = {name: bench.zoo.make("metric", name) for name in COLUMNS}
    for name, strength, setting in settings(names):
        kept = bench.kept(setting)[0]
        if setting in known and (kept is None or len(kept) < n):
            continue
        seen, _ = bench.features(setting, n)
        fake = bench.asked(seen)[:n]
        found = {key: estimate for key, metric in metrics.items() if (estimate := metric(fake, bench.reference))}
        if setting in known and known[setting].scores == found:
            continue
        yield Reading(curve=name, strength=strength, setting=setting, nfe=bench.nfe(setting), scores=found, made=now())


@click.command()
@click.option("-n", "--count", default=500, show_default=True, type=click.IntRange(min=20), help="Images a point.")
@click.option("--curves", default="", help=f"Some of {'; '.join(FAMILIES)}, with semicolons between.")
@click.option("--budget", default="60m", show_default=True, help="Time, as 90s, 60m, 2h.")
@click.option("--work", type=click.Path(path_type=Path), default=HERE / "run-guidance", help="Folder of what is kept.")
@click.option("-o", "--out", type=click.Path(path_type=Path), default=HERE / "results" / "guidance.json")
def main(count: int, curves: str, budget: str, work: Path, out: Path) -> None:
    """Measure the guidances; write their curves, table and plot."""
    names = [name.strip() for name in curves.split(";") if name.strip()] or list(FAMILIES)
    if not set(names) <= FAMILIES.keys():
        raise click.BadParameter(f"write some of {'; '.join(FAMILIES)}", param_hint="--curves")
    bench = Bench(default_zoo(), MODEL, work, parse_duration(budget, "--budget"))
    found = earlier(out, bench, count)
    try:
        for reading in readings(bench, names, count, found.copy()):
            found[reading.setting] = reading
            scores = ", ".join(f"{name} {score.value:.4g}" for name, score in reading.scores.items())
            click.echo(f"{reading.setting.scheduler}, guidance {reading.setting.guidance}: {scores}", err=True)
    except Spent as spent:
        click.echo(f"{spent}; the same command goes on from here", err=True)
    if not found:
        return
    shown = {reading.curve for reading in found.values() if reading.strength is not None}
    result = Control.of(
        bench,
        count,
        readings=tuple(sorted(found.values(), key=lambda r: (list(FAMILIES).index(r.curve), r.strength or 0))),
        plain=tuple(name for name in FAMILIES if name in shown and FAMILIES[name].plain),
        left_out=LEFT_OUT,
    )
    result.publish(out, markdown(result), svg(result))


if __name__ == "__main__":
    main()
