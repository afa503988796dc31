"""Frechet distance against network evaluations, for every registered scheduler on a shipped diffusion model.

python benchmarks/solvers.py --budget 60m            the curve: every scheduler at 5, 8, 10 ... 1000 evaluations
python benchmarks/solvers.py --search --budget 30m   the cheapest setting as good as DDPM with 1,000 steps
python benchmarks/solvers.py --limit 0               write the files from what was measured so far

Each may be stopped and started again at any time; see sampling.py. Threads are torch's own (OMP_NUM_THREADS). Writes
results/solvers.json with what was measured, and its table (.md) and plot (.svg) beside it.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import click
import torch
from sampling import Bench, Curve, Found, Point, Setting, Spent, describe
from solver_page import markdown, svg

from genzoo.bench import environment, now
from genzoo.cli.arguments import parse_duration
from genzoo.errors import GenzooError
from genzoo.files import write_whole
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
DEPTHS = (4, 5, 6, 7, 8, 10, 12, 15, 20, 25)

#: What the search varies. Guidance helps in the middle of the walk alone (Kynkaanniemi et al. 2024); the bounds are of
#: sigma / alpha.
GRIDS = ("trailing", "linspace", "quadratic", "uniform", "karras", "log-snr", "beta")
GUIDANCES = ("1", "1.5", "interval:scale=1.5,low=0.3,high=5", "interval:scale=2,low=0.5,high=3")

#: What diffusers has of it: the same search within that says what the peer could reach.
PEER = (
    "ddpm", "ddim", "euler", "euler-ancestral", "heun", "dpm-2", "dpmpp-1s", "dpmpp-2m", "dpmpp-2m-sde", "dpmpp-2s",
    "unipc", "deis", "lms", "plms", "pndm",
)  # fmt: skip
PEER_GRIDS = ("trailing", "linspace", "karras", "log-snr", "beta")
PEER_GUIDANCES = ("1", "1.5")


def fitting(bench: Bench, names: Sequence[str], grid: str) -> tuple[list[str], dict[str, str]]:
    """(the schedulers that fit, with their grid; those that are left out, and why)."""
    kept: dict[str, torch.Tensor] = {}
    skipped = {}
    for name in names:
        if name in DISTILLED:
            skipped[name] = f"made for models that were distilled to a few steps, which {bench.card.name} was not"
            continue
        spec = name if grid == "own" else f"{name}:spacing={grid}"
        try:
            walked = footprint(bench, spec)
        except GenzooError as error:
            skipped[name] = str(error)
            continue
        twin = next((other for other, seen in kept.items() if torch.equal(seen, walked)), None)
        if twin is not None:
            skipped[name] = f"on this grid it takes the same steps as {twin}"
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

    *_, last = scheduler.walk(denoise, noise.start(1, 2, 2), scheduler.grid(schedule, 6), noise)
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
    """The setting with the fewest evaluations whose distance is at most the anchor's.

    Depth by depth in evaluations; the first that has one ends it. At each, all pairs of scheduler and grid that are
    still in the race are screened on a quarter of the images; the best four of them with every guidance; the best three
    of those on all images. The best third of the pairs, eight at least, goes on to the next depth.
    """
    few, goal = max(n // 4, 20), bench.measure(ANCHOR, n).value
    tried: set[Setting] = set()

    def ranked(candidates: Sequence[Setting | None]) -> list[Setting]:
        points = [bench.measure(setting, few) for setting in dict.fromkeys(candidates) if setting is not None]
        tried.update(point.setting for point in points)
        return [point.setting for point in sorted(points, key=lambda point: point.value)]

    def attempt(scheduler: str, nfe: int, guidance: str) -> Setting | None:
        try:
            return bench.at(scheduler, nfe, guidance)
        except GenzooError:
            return None  # a grid that the scheduler does not walk on, or a step more than it knows

    pairs = [spec for grid in grids for spec in fitting(bench, schedulers, grid)[0]]
    for depth in DEPTHS:
        plain = ranked([attempt(pair, depth, "1") for pair in pairs])
        guided = [attempt(setting.scheduler, depth, guidance) for setting in plain[:4] for guidance in guidances]
        finals = [bench.measure(setting, n) for setting in ranked([*plain[:4], *guided])[:3]]
        best = min(finals, key=lambda point: point.value)
        click.echo(f"{within}, {depth} evaluations: {describe(best)}; goal {goal:.4f}", err=True)
        if best.value <= goal:
            reached = [point for point in finals if point.value <= goal]
            winner = min(reached, key=lambda point: (point.nfe, point.value))
            return Found(within=within, goal=goal, point=winner, tried=len(tried))
        pairs = [setting.scheduler for setting in plain[: max(8, len(plain) // 3)]]
    return Found(within=within, goal=goal, point=None, tried=len(tried))


def earlier(path: Path, bench: Bench, n: int) -> tuple[Found, ...]:
    """What searches of this model with ``n`` images found before, from the file that is about to be replaced."""
    if not path.exists():
        return ()
    try:
        before = Curve.model_validate_json(path.read_bytes())
    except ValueError:
        return ()
    same = (before.weights, before.digest, before.n) == (bench.weights, bench.extractor.digest, n)
    return before.found if same else ()


def outcome(bench: Bench, n: int, command: str, skipped: Mapping[str, str], found: Sequence[Found]) -> Curve:
    """Everything that was measured with ``n`` images, in this run and before."""
    points = [point for (_, count), point in bench.known.items() if count == n]
    return Curve(
        made=now(),
        command=command,
        environment=environment("cpu"),
        model=bench.card.name,
        weights=bench.weights,
        dataset=bench.card.data,
        extractor=bench.extractor.name,
        digest=bench.extractor.digest,
        n=n,
        points=tuple(sorted(points, key=lambda p: (p.setting.scheduler, p.setting.guidance, p.nfe))),
        skipped=dict(skipped),
        found=tuple(found),
    )


@click.command()
@click.option("--model", default="ddpm.fashion-mnist", show_default=True, help="A diffusion model of the catalogue.")
@click.option("-n", "--count", default=1000, show_default=True, type=click.IntRange(min=20), help="Images a point.")
@click.option("--schedulers", default="", help="Names, as ddim,unipc; by default all that are registered.")
@click.option("--nfe", default=EVALUATIONS, show_default=True, help="Evaluations of the network per image.")
@click.option(
    "--grids", default="trailing", show_default=True, help="One for all, so that methods differ; own: theirs."
)
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
    bench = Bench(zoo, model, work, parse_duration(budget), limit)
    names = [name for name in schedulers.split(",") if name] or ["ddim", *zoo.names("scheduler")]
    chosen = list(dict.fromkeys(names))  # ddim first, so that it lends its name to those that are the same
    found = {one.within: one for one in earlier(out, bench, count)}
    skipped: dict[str, str] = {}
    specs: list[str] = []
    for grid in grids.split(","):
        fit, left_out = fitting(bench, chosen, grid)
        specs, skipped = [*specs, *fit], {**skipped, **left_out}
    try:
        if searching:
            found["genzoo"] = search(bench, "genzoo", chosen, GRIDS, GUIDANCES, count)
            peers = [name for name in chosen if name in PEER]
            found["diffusers"] = search(bench, "diffusers", peers, PEER_GRIDS, PEER_GUIDANCES, count)
        else:
            for point in curve(bench, specs, [int(part) for part in nfe.split(",")], guidances, count):
                click.echo(f"{point.nfe:6g} evaluations, {describe(point)}  ({point.seconds:.0f} s)", err=True)
    except Spent as spent:
        click.echo(f"{spent}; the same command goes on from here", err=True)
    result = outcome(bench, count, shlex.join(["python", *sys.argv]), skipped, list(found.values()))
    if result.points:
        write_whole(out, result.model_dump_json(indent=1) + "\n")
        write_whole(out.with_suffix(".md"), markdown(result))
        write_whole(out.with_suffix(".svg"), svg(result))
        click.echo(markdown(result))


if __name__ == "__main__":
    main()
