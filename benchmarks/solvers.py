"""Frechet distance against network evaluations, for every registered scheduler on a shipped diffusion model.

python benchmarks/solvers.py --budget 60m            the curve: every scheduler at 5, 8, 10 ... 1000 evaluations
python benchmarks/solvers.py --grids trailing,own    on one grid for all, and on each scheduler's own
python benchmarks/solvers.py --search --budget 30m   the cheapest setting as good as DDPM with 1,000 steps
python benchmarks/solvers.py -n 2000 --schedulers ddpm --nfe 1000 -o OTHER.json    the anchor on more fresh seeds
python benchmarks/solvers.py --limit 0               write the files from what was measured so far

Each may be stopped and started again at any time; see sampling.py. Threads are torch's own (OMP_NUM_THREADS). Writes
results/solvers.json with what was measured, and its table (.md) and plot (.svg) beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import click
import torch
from measured import Curve, Difference, Found, Point, Setting, describe
from sampling import Bench, Spent
from solver_page import column, markdown, svg

from genzoo.cli.arguments import parse_duration
from genzoo.errors import GenzooError
from genzoo.frozen import Seq
from genzoo.noise import Noise
from genzoo.registry import default_zoo
from genzoo.scheduler import Scheduler

HERE = Path(__file__).parent
EVALUATIONS = "5,8,10,15,20,50,100,250,1000"

#: What the goal is measured against, and where in the order of the curve's points, by evaluations, it has its turn.
ANCHOR = Setting(scheduler="ddpm:spacing=trailing", steps=1000)
ANCHOR_TURN = 10.5

#: Made for models that were distilled to a few steps; the shipped one was not.
DISTILLED = ("lcm", "tcd")

#: Evaluations at which the search looks.
DEPTHS = (4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 25)

#: Variants that the search looks at beside every scheduler's defaults; diffusers has all of them.
VARIANTS = ("unipc:order=3", "dpmpp-2m:variant=heun", "dpmpp-2m-sde:variant=heun", "dpmpp-3m:variant=published")

#: What the search varies. Guidance helps in the middle of the walk alone (Kynkaanniemi et al. 2024); the bounds of
#: guidances and grids are of sigma / alpha. The plain ones are those that diffusers has: it bounds no ramp, some of its
#: schedulers take the inner times of a longer grid, and its beta grid is another.
OPEN = "sigma_max=1e6,sigma_min=1e-6"
PLAIN_GRIDS = (
    "trailing", "linspace", "linspace,inner=true", "leading,inner=true", f"karras,{OPEN}", f"log-snr,{OPEN}",
)  # fmt: skip
GRIDS = (
    *PLAIN_GRIDS, f"beta,{OPEN}", "uniform,sigma_max=1e6", "uniform,sigma_max=40", "uniform,sigma_max=15",
    "karras,sigma_max=80,sigma_min=0.1", "karras,sigma_max=20,sigma_min=0.2", "log-snr,sigma_max=40,sigma_min=0.1",
    "log-snr,sigma_max=15,sigma_min=0.2",
)  # fmt: skip
PLAIN_GUIDANCES = ("1", "1.25", "1.5", "2")
GUIDANCES = (
    *PLAIN_GUIDANCES, "interval:scale=1.5,low=0.3,high=5", "interval:scale=2,low=0.5,high=3",
    "interval:scale=1.5,low=0.5,high=2", "interval:scale=3,low=0.5,high=2",
)  # fmt: skip

#: The schedulers that diffusers has: the same search within these says what the peer could reach.
PEER = (
    "ddpm", "ddim", "euler", "euler-ancestral", "heun", "dpm-2", "dpmpp-1s", "dpmpp-2m", "dpmpp-2m-sde", "unipc",
    "deis", "lms", "plms", "pndm",
)  # fmt: skip


def on(scheduler: str, grid: str) -> str:
    """A scheduler, with or without options, on a grid with its options."""
    return f"{scheduler}{',' if ':' in scheduler else ':'}spacing={grid}"


def own(bench: Bench, scheduler: str) -> str:
    """A scheduler on its default grid, written out, so that what was measured stays true when a default changes."""
    made: Scheduler = bench.zoo.make("scheduler", scheduler)
    bounds = [f"{key}={getattr(made, key):g}" for key in ("sigma_max", "sigma_min") if getattr(made, key) is not None]
    return on(scheduler, ",".join([made.spacing, *bounds]))


def fitting(bench: Bench, names: Sequence[str], wanted: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """(the schedulers that fit, with their grids; those that are left out, and why)."""
    kept: dict[str, torch.Tensor] = {}
    skipped = {}
    for grid in wanted:
        for name in names:
            if name in DISTILLED:
                skipped[name] = f"made for models that were distilled to a few steps, which {bench.card.name} was not"
                continue
            spec = own(bench, name) if grid == "own" else on(name, grid)
            if spec in kept:
                continue
            try:
                walked = footprint(bench, spec)
            except GenzooError as error:
                skipped[spec] = str(error)
                continue
            twin = next((other for other, seen in kept.items() if torch.equal(seen, walked)), None)
            if twin is not None:
                skipped[spec] = f"it takes the same steps as {twin}"
            else:
                kept[spec] = walked
    return list(kept), skipped


def footprint(bench: Bench, spec: str) -> torch.Tensor:
    """Where a walk of six steps with a made-up denoiser ends, rounded: equal for methods that are the same."""
    scheduler: Scheduler = bench.zoo.make("scheduler", spec)
    schedule = cast(Any, bench.model).denoiser.schedule
    noise = Noise(range(4), dtype=torch.float64)

    def denoise(x: torch.Tensor, t: float) -> torch.Tensor:
        return torch.tanh(x * (1.5 - t / schedule.length))

    grid = scheduler.grid(schedule, 6)
    *_, last = scheduler.walk(denoise, scheduler.begin(noise.start(1, 2, 2), grid), grid, noise)
    return last.mul(1e9).round()


def curve(
    bench: Bench, schedulers: Sequence[str], targets: Sequence[int], guidances: Sequence[str], n: int
) -> Iterator[Point]:
    """The points of the curve, the cheap ones first: whenever the time is up, the table is as full as can be."""
    turns: dict[Setting, float] = {}
    for guidance in guidances:
        for nfe in sorted(targets):
            for scheduler in schedulers:
                setting = bench.at(scheduler, nfe, guidance)
                if setting is not None:  # a method that cannot meet the target exactly stays a little below it
                    turns.setdefault(setting, ANCHOR_TURN if setting == ANCHOR else nfe)
    for setting in sorted(turns, key=turns.__getitem__):
        yield bench.measure(setting, n)


def search(
    bench: Bench,
    within: Literal["genzoo", "diffusers"],
    schedulers: Sequence[str],
    grids: Sequence[str],
    guidances: Sequence[str],
    n: int,
) -> Found:
    """The setting with the fewest evaluations whose distance is at most the anchor's, here and on fresh seeds.

    Depth by depth in evaluations. At each, all pairs of scheduler and grid that are still in the race are screened on a
    quarter of the images; the best four of them with every guidance; the best three of those on all n. The better half
    of the pairs, eight at least, goes on to the next depth. A setting that was the best of many is flattered by the
    seeds it was the best on: one that reaches the anchor is held against it once more on the n seeds that follow, and
    the first that reaches it there too ends the search.
    """
    few, goal = max(n // 4, 20), bench.measure(ANCHOR, n).value
    tried: set[Setting] = set()
    unconfirmed: list[Difference] = []

    def ranked(candidates: Sequence[Setting | None]) -> list[Setting]:
        points = [bench.measure(setting, few) for setting in dict.fromkeys(candidates) if setting is not None]
        tried.update(point.setting for point in points)
        return [point.setting for point in sorted(points, key=lambda point: point.value)]

    def attempt(scheduler: str, nfe: int, guidance: str) -> Setting | None:
        try:
            return bench.at(scheduler, nfe, guidance)
        except GenzooError:
            return None  # a grid that the scheduler does not walk on, or a step more than it knows

    pairs = fitting(bench, schedulers, grids)[0]
    for depth in DEPTHS:
        plain = ranked([attempt(pair, depth, "1") for pair in pairs])
        guided = [attempt(setting.scheduler, depth, guidance) for setting in plain[:4] for guidance in guidances]
        finals = [bench.measure(setting, n) for setting in ranked([*plain[:4], *guided])[:3]]
        best = min(finals, key=lambda point: point.value)
        click.echo(f"{within}, {depth} evaluations: {describe(best)}; goal {goal:.4f}", err=True)
        for point in sorted(finals, key=lambda point: (point.nfe, point.value)):
            if point.value <= goal:
                fresh = bench.difference(point.setting, ANCHOR, n, start=n)
                click.echo(f"{within}, on fresh seeds: {describe(point)} there {fresh.value:+.4f}", err=True)
                if fresh.value <= 0:
                    return Found(
                        within=within, goal=goal, point=point, fresh=fresh, unconfirmed=unconfirmed, tried=len(tried)
                    )
                unconfirmed.append(fresh)
        pairs = [setting.scheduler for setting in plain[: max(8, len(plain) // 2)]]
    return Found(within=within, goal=goal, point=None, unconfirmed=unconfirmed, tried=len(tried))


def against_anchor(bench: Bench, points: Sequence[Point], specs: Sequence[str], n: int) -> list[Difference]:
    """Each unguided line's point of 10 evaluations against the anchor on the same seeds, the best first.

    The best of many is flattered by the seeds that it was picked on: it follows once more on those after them that the
    anchor was measured on, which had no part in it. What was found before stands, of lines of other runs too: the
    features that it comes from may be gone. What there is no time for is left out, which is said.
    """
    ten = [point.setting for point in points if point.nfe == 10 and point.setting.guidance == ANCHOR.guidance]
    if all(point.setting != ANCHOR for point in points):
        return []
    found = []
    for setting in ten:
        if setting.scheduler in specs or (setting, ANCHOR, 0, n) in bench.apart:
            found += in_time(bench, setting, n)
    if not found:
        return []
    found.sort(key=lambda one: one.value)
    best = found[0].setting
    fresh = [one for (setting, _, start, _), one in bench.apart.items() if (setting, start) == (best, n)]
    anchor = bench.kept(ANCHOR)[0]
    if not fresh and anchor is not None and len(anchor) > n:
        fresh = in_time(bench, best, len(anchor) - n, n)
    return [*found, *sorted(fresh, key=lambda one: one.n)[-1:]]


def in_time(bench: Bench, setting: Setting, n: int, start: int = 0) -> list[Difference]:
    """The difference from the anchor; none where there is no time for it."""
    try:
        return [bench.difference(setting, ANCHOR, n, start)]
    except Spent as spent:
        click.echo(f"{setting.scheduler} is not held against the anchor from seed {start} on: {spent}", err=True)
        return []


def missing(bench: Bench, specs: Sequence[str], targets: Sequence[int], points: Sequence[Point]) -> dict[str, Seq[int]]:
    """Scheduler -> the evaluations at which it has a walk of its own that was not measured, unguided."""
    measured = {point.setting for point in points}
    found = {}
    for spec in specs:
        lacking = []
        for nfe in targets:
            setting = bench.at(spec, nfe)
            if setting is not None and setting not in measured and column(bench.nfe(setting)) == nfe:
                lacking.append(nfe)
        if lacking:
            found[spec] = tuple(lacking)
    return found


def earlier(path: Path, bench: Bench, n: int) -> Curve | None:
    """What was found of this model with ``n`` images before, from the file that is about to be replaced.

    Its points count as measured and its differences as found, wherever their features are by now.
    """
    before = Curve.before(path, bench, n)
    if before is None:
        return None
    for point in before.points:
        bench.known.setdefault((point.setting, point.start, point.n), point)
    of_searches = (one for found in before.found for one in (found.fresh, *found.unconfirmed) if one is not None)
    for one in (*before.goal, *of_searches):
        bench.apart[one.setting, ANCHOR, one.start, one.n] = one
    return before


def outcome(
    bench: Bench,
    n: int,
    specs: Sequence[str],
    guidances: Sequence[str],
    targets: Sequence[int],
    skipped: Mapping[str, str],
    found: Sequence[Found],
) -> Curve:
    """Everything that was measured with ``n`` images or more, in this run and before."""
    points = bench.at_hand(n)
    return Curve.of(
        bench,
        n,
        points=tuple(sorted(points, key=lambda p: (p.setting.scheduler, p.setting.guidance, p.nfe))),
        lines=tuple(specs),
        guidances=tuple(guidances),
        missing=missing(bench, specs, targets, points),
        goal=tuple(against_anchor(bench, points, specs, n)),
        skipped=dict(skipped),
        found=tuple(found),
    )


@click.command()
@click.option("--model", default="ddpm.fashion-mnist", show_default=True, help="A diffusion model of the catalogue.")
@click.option("-n", "--count", default=1000, show_default=True, type=click.IntRange(min=20), help="Images a point.")
@click.option("--schedulers", default="", help="Names, as ddim,unipc; by default all that are registered.")
@click.option("--nfe", default=EVALUATIONS, show_default=True, help="Evaluations of the network per image.")
@click.option("--grids", default="trailing", show_default=True, help="With commas; own: each scheduler's default.")
@click.option("--guidance", "guidances", multiple=True, default=("1",), show_default=True, help="May be repeated.")
@click.option("--budget", default="60m", show_default=True, help="Time, as 90s, 60m, 2h.")
@click.option("--limit", type=click.IntRange(min=0), help="New points at most.")
@click.option("--search", "searching", is_flag=True, help="Search for the cheapest setting as good as the anchor.")
@click.option("--work", type=click.Path(path_type=Path), default=HERE / "run-solvers", help="Folder of what is kept.")
@click.option("-o", "--out", type=click.Path(path_type=Path), default=HERE / "results" / "solvers.json")
def main(
    model: str,
    count: int,
    schedulers: str,
    nfe: str,
    grids: str,
    guidances: tuple[str, ...],
    budget: str,
    limit: int | None,
    searching: bool,
    work: Path,
    out: Path,
) -> None:
    """Measure the solvers; write their curve, table and plot."""
    zoo = default_zoo()
    bench = Bench(zoo, model, work, parse_duration(budget, "--budget"), limit)
    names = [name for name in schedulers.split(",") if name] or ["ddim", *zoo.names("scheduler")]
    chosen = list(dict.fromkeys(names))  # ddim first, so that it lends its name to those that are the same
    before = earlier(out, bench, count)
    found = {one.within: one for one in (before.found if before else ())}
    targets = [int(part) for part in nfe.split(",")]
    specs, skipped = fitting(bench, chosen, grids.split(","))
    try:
        if searching:
            peers = [name for name in chosen if name in PEER]
            found["diffusers"] = search(bench, "diffusers", [*peers, *VARIANTS], PLAIN_GRIDS, PLAIN_GUIDANCES, count)
            found["genzoo"] = search(bench, "genzoo", [*chosen, *VARIANTS], GRIDS, GUIDANCES, count)
        else:
            for point in curve(bench, specs, targets, guidances, count):
                click.echo(f"{point.nfe:6g} evaluations, {describe(point)}  ({point.seconds:.0f} s)", err=True)
    except Spent as spent:
        click.echo(f"{spent}; the same command goes on from here", err=True)
    result = outcome(bench, count, specs, guidances, targets, skipped, list(found.values()))
    if result.points:
        result.publish(out, markdown(result), svg(result))


if __name__ == "__main__":
    main()
