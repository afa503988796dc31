"""Seconds per 1,000 images at the quality of DDPM with 1,000 steps: genzoo's cheapest setting, diffusers', and DDPM.

python benchmarks/solvers.py -n 500 --search --budget 60m     first: what each library's cheapest setting is
python benchmarks/time_to_quality.py                          then: what they cost, in turns in one process

The settings are those that the searches in results/solvers.json found. diffusers runs its own network, scheduler and
loop on the same weights (peer_sampling.py), without clamping x_0 where that reaches the quality too, for it is the
quicker way there; its images are judged by the same extractor on the same seeds. Beside the setting that its search
confirmed on fresh seeds stands the cheapest that was as good on the seeds of the search alone: the least that diffusers
can need. DDPM is timed over fewer steps, which all cost the same, and its seconds are multiplied. Writes
results/time-to-quality.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Literal

import click
from measured import Curve, Difference, Measured, Setting
from peer_sampling import PeerBench
from ratios import Ratio, interleaved
from sampling import Bench
from solvers import ANCHOR

from genzoo.errors import ResultsError
from genzoo.frozen import Count, Frozen, Number, Seq
from genzoo.registry import default_zoo

HERE = Path(__file__).parent

#: Steps over which DDPM is timed.
TIMED = 20


class Party(Frozen):
    """One way to the quality.

    Attributes:
        library: whose network, scheduler and loop.
        setting: of the sampling, in genzoo's words.
        clips: whether x_0 is clamped in every step.
        nfe: evaluations of the network per image.
        distance: the Frechet distance of its images on the seeds of the check.
        confirmed: whether its search held it to be as good as the anchor on those as well; one that was so on the seeds
            it was chosen by alone is cheaper, and flattered.
    """

    library: Literal["genzoo", "diffusers"]
    setting: Setting
    clips: bool
    nfe: Number
    distance: Number
    confirmed: bool = True


class Race(Frozen):
    """genzoo's way against another at one batch size.

    Attributes:
        rival: the other way.
        batch: images a call.
        seconds, rival_seconds: per 1,000 images, the medians.
        faster: how many times faster genzoo's is, from repetitions in turns.
        timed: the steps that the rival was timed over, where its seconds were multiplied up to all of them.
    """

    rival: Party
    batch: Count
    seconds: Number
    rival_seconds: Number
    faster: Ratio
    timed: Count | None = None


class Races(Measured):
    """All of a run.

    Attributes:
        start: the first of the n seeds of the check, which took no part in the searches' choices.
        goal: DDPM's distance on them.
        genzoo: the way that the rows hold against others.
    """

    format: Literal["genzoo.time-to-quality/2"] = "genzoo.time-to-quality/2"
    start: Count
    goal: Number
    genzoo: Party
    rows: Seq[Race]


def check_of(curve: Curve, within: str) -> Difference:
    """A search's setting on fresh seeds; raises ResultsError where it found none."""
    fresh = next((one.fresh for one in curve.found if one.within == within), None)
    if fresh is None:
        raise ResultsError(f"no search within {within} has found a setting; run python benchmarks/solvers.py --search")
    return fresh


def hasty_of(curve: Curve, bench: Bench) -> Difference | None:
    """diffusers' setting of the fewest evaluations that was as good as the anchor on the seeds of the search alone."""
    doubted = [one for found in curve.found if found.within == "diffusers" for one in found.unconfirmed]
    return min(doubted, key=lambda one: (bench.nfe(one.setting), one.distance), default=None)


def peer_of(benches: Sequence[PeerBench], fresh: Difference, confirmed: bool) -> tuple[PeerBench, Party]:
    """diffusers' way: the first bench's, the quicker one, unless only a later one reaches the goal."""
    tried = []
    for bench in benches:
        point = bench.measure(fresh.setting, fresh.n, fresh.start)
        party = Party(
            library="diffusers",
            setting=fresh.setting,
            clips=bench.clips,
            nfe=point.nfe,
            distance=point.value,
            confirmed=confirmed,
        )
        tried.append((bench, party))
    return next((one for one in tried if one[1].distance <= fresh.anchor), tried[0])


def race(ours: Bench, mine: Setting, theirs: Bench, rival: Party, batch: int, repetitions: int) -> Race:
    """Time both in turns; the anchor over few of its steps."""
    classes = ours.model.num_classes
    labels = [seed % classes for seed in range(batch)] if classes else None
    timed = TIMED if rival.setting == ANCHOR else None
    timed_setting = rival.setting.model_copy(update={"steps": timed}) if timed else rival.setting
    part = interleaved(
        lambda: ours.images(mine, range(batch), labels),
        lambda: theirs.images(timed_setting, range(batch), labels),
        repetitions,
    )
    whole = [seconds * (rival.setting.steps / timed if timed else 1) for seconds in part.second]
    faster = Ratio.of(list(part.first), whole, part.clock)
    return Race(
        rival=rival,
        batch=batch,
        seconds=1000 / batch * median(faster.first),
        rival_seconds=1000 / batch * median(whole),
        faster=faster,
        timed=timed,
    )


def line(row: Race, goal: float) -> str:
    """A row in words."""
    rival = row.rival
    doubt = "" if rival.confirmed else " (not confirmed)"
    return (
        f"batch {row.batch}, seconds per 1,000 images: {row.seconds:.2f}; {row.rival_seconds:.2f} for "
        f"{rival.library}'s {rival.setting.scheduler}, {rival.nfe:g} evaluations, distance {rival.distance:.4f} of "
        f"{goal:.4f}{doubt}: {row.faster.value:.2f} ({row.faster.low:.2f} to {row.faster.high:.2f}) times faster"
    )


@click.command()
@click.option("--solvers", type=click.Path(path_type=Path), default=HERE / "results" / "solvers.json")
@click.option("--batch", "batches", default="64", show_default=True, help="With commas.")
@click.option("--repetitions", default=9, show_default=True, type=click.IntRange(min=3))
@click.option("--work", type=click.Path(path_type=Path), default=HERE / "run-solvers", help="Folder of what is kept.")
@click.option("-o", "--out", type=click.Path(path_type=Path), default=HERE / "results" / "time-to-quality.json")
def main(solvers: Path, batches: str, repetitions: int, work: Path, out: Path) -> None:
    """Time the cheapest settings of both libraries, and DDPM with 1,000 steps."""
    curve = Curve.model_validate_json(solvers.read_bytes())
    check, fresh = check_of(curve, "genzoo"), check_of(curve, "diffusers")
    given = (default_zoo(), curve.model, work, 1e6)
    bench, benches = Bench(*given), [PeerBench(*given, clips=clips) for clips in (False, True)]
    if (curve.weights, curve.digest) != (bench.weights, bench.extractor.digest):
        raise ResultsError(f"{solvers} is of other weights or another extractor; search again with solvers.py --search")
    mine = Party(
        library="genzoo", setting=check.setting, clips=True, nfe=bench.nfe(check.setting), distance=check.distance
    )
    anchor = Party(library="genzoo", setting=ANCHOR, clips=True, nfe=bench.nfe(ANCHOR), distance=check.anchor)
    hasty = hasty_of(curve, bench)
    rivals = [peer_of(benches, fresh, True), *([peer_of(benches, hasty, False)] if hasty else []), (bench, anchor)]
    rows = []
    for batch in map(int, batches.split(",")):
        for theirs, rival in rivals:
            rows.append(race(bench, mine.setting, theirs, rival, batch, repetitions))
            click.echo(line(rows[-1], check.anchor))
    Races.of(bench, check.n, start=check.start, goal=check.anchor, genzoo=mine, rows=tuple(rows)).write(out)


if __name__ == "__main__":
    main()
