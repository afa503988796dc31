"""Made-up results for the report's tests: as full as real ones, quick to make, and under names of one's choice."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from genzoo.milestones import Milestone
from genzoo.results import (
    Environment,
    ModelResult,
    Neighbours,
    Results,
    Score,
    Setting,
    Sheet,
    Speed,
    Stability,
    Sweep,
)
from genzoo.runs import Family, Run

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

#: metric, title, better, theme, unit, and values for a GAN, a better GAN, a diffusion model and real images.
METRICS = (
    ("frechet", "Frechet distance", "lower", "quality", "", (2.63, 1.41, 0.487, 0.0703)),
    ("frechet-infinity", "Frechet distance, n to infinity", "lower", "quality", "", (2.51, 1.31, 0.38, 0.002)),
    ("kernel", "Kernel distance", "lower", "quality", "", (0.0128, 0.0061, 0.00129, -0.00015)),
    ("precision", "Precision", "higher", "quality", "", (0.878, 0.921, 0.957, 0.944)),
    ("density", "Density", "higher", "quality", "", (0.844, 0.93, 1.1, 0.974)),
    ("recall", "Recall", "higher", "diversity", "", (0.119, 0.41, 0.792, 0.948)),
    ("coverage", "Coverage", "higher", "diversity", "", (0.382, 0.61, 0.887, 0.973)),
    ("class-entropy", "Class entropy", "higher", "diversity", "bits", (3.28, 3.31, 3.32, 3.321)),
    ("modes-dropped", "Modes dropped", "lower", "diversity", "", (1, 0, 0, 0)),
    ("vendi", "Vendi score", "higher", "diversity", "", (21.2, 26.4, 29.8, 31.1)),
    ("copies", "Distance to training images", "higher", "diversity", "", (4.9, 4.7, 4.2, 4.1)),
    ("label-accuracy", "Label accuracy", "higher", "control", "%", (90, 93.5, 98.8, 94.6)),
)

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="

EXACT = ("modes-dropped",)


def environment(processor: str = "AMD EPYC 7763", threads: int = 2) -> Environment:
    return Environment(
        device="cpu",
        processor=processor,
        threads=threads,
        platform="Linux x86_64",
        versions={"python": "3.11.7", "torch": "2.13.0+cpu", "genzoo": "0.1.0"},
    )


def pictures(rows: int, columns: int, seed: int, blur: float = 1.0) -> str:
    """Blobs whose shape depends on the column, as a PNG in base64."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:28, 0:28] / 27 - 0.5
    canvas = np.zeros((rows * 29, columns * 29))
    for r in range(rows):
        for c in range(columns):
            wide, tall, tilt = 0.15 + 0.03 * c, 0.45 - 0.03 * c, random.normal(0, 0.2 * blur)
            u, v = x * math.cos(tilt) - y * math.sin(tilt), x * math.sin(tilt) + y * math.cos(tilt)
            body = np.clip(1.3 - ((u / wide) ** 4 + (v / tall) ** 4), 0, 1) * random.uniform(0.5, 1)
            canvas[r * 29 : r * 29 + 28, c * 29 : c * 29 + 28] = body * 255
    buffer = io.BytesIO()
    Image.fromarray(canvas.astype(np.uint8)).save(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()


def scores(column: int, repeats: int = 3) -> tuple[Score, ...]:
    found = []
    for metric, title, better, theme, unit, values in METRICS:
        value = float(values[column])
        width = 0.0 if metric in EXACT else 0.05 * abs(value) + 1e-4
        by_class: tuple[float | None, ...] = ()
        if metric in ("label-accuracy", "recall", "copies"):
            by_class = tuple(value * (1 - 0.02 * ((i * 7 + column) % 5)) for i in range(10))
        found.append(
            Score(
                metric=metric,
                title=title,
                better=better,
                theme=theme,
                unit=unit,
                value=value,  # type: ignore[arg-type]
                about=f"What {title} means, in a sentence that is about as long as they are.",
                low=value - width,
                high=value + width,
                n=1000,
                by_class=by_class,
                repeats=tuple(value + width * shift for shift in (-0.4, 0.1, 0.3)[:repeats]),
            )
        )
    return tuple(found)


def speed(latency: float, rate: float, nfe: float, flops: float) -> Speed:
    return Speed(
        load_seconds=0.8,
        first_seconds=latency * 3,
        latency=tuple(latency * (1 + 0.02 * i) for i in range(-3, 4)),
        batch=64,
        batch_seconds=tuple(64 / rate * (1 + 0.03 * i) for i in (-1, 0, 1)),
        peak_bytes=3 * 10**8,
        base_bytes=2 * 10**8 - int(rate * 1000),
        nfe=nfe,
        flops=flops,
    )


def sweep(option: str, column: int, values: Sequence[float]) -> Sweep:
    points = []
    for i, value in enumerate(values):
        low, high = (scored for scored in scores(column, 0) if scored.metric in ("frechet", "label-accuracy"))
        turn = i / max(1, len(values) - 1)
        points.append(
            Setting(
                value=value,
                scores=(
                    low.model_copy(update={"value": low.value * (1.6 - 1.4 * turn + 1.6 * turn**2), "n": 300}),
                    high.model_copy(update={"value": 80 + (high.value - 79) * turn**0.5, "n": 300}),
                ),
            )
        )
    return Sweep(option=option, n=300, points=points)


def curve(best: float, minutes: float, rises: float = 1.0, points: int = 12) -> tuple[Milestone, ...]:
    found = []
    for i in range(1, points + 1):
        along = i / points
        distance = best * (1 + 9 * math.exp(-5 * along)) * (rises if along > 0.8 else 1)
        losses = {"generator": 1 + along + 0.1 * math.sin(9 * i), "discriminator": 1.3 - 0.5 * along}
        found.append(Milestone(step=100 * i, seconds=60 * minutes * along, scores={"frechet": distance}, losses=losses))
    return tuple(found)


SPEEDS = (speed(665e-6, 11921, 1, 15.8e6), speed(2.3e-3, 3120, 1, 9.4e7), speed(0.114, 20.86, 40, 12.5e9))
SWEEPS = (
    sweep("truncation", 0, (0.5, 0.7, 1)),
    sweep("truncation", 1, (0.5, 0.7, 1)),
    sweep("guidance", 2, (0, 1, 2, 4, 7)),
)


def model(name: str, column: int, generator: str, **changes: object) -> ModelResult:
    given: dict[str, object] = {
        "summary": f"The {generator} of these tests, trained on pictures that nobody took",
        "generator": generator,
        "options": {"steps": 20, "guidance": 2.0, "truncation": None},
        "parameters": (1_390_000, 3_100_000, 2_250_000)[column],
        "file_bytes": (5_550_000, 12_400_000, 9_030_000)[column],
        "weights": f"{column}" * 64,
        "scores": scores(column),
        "speed": SPEEDS[column],
        "sheet": Sheet(png=pictures(4, 10, column), columns=10, labels=CLASSES, seeds=tuple(range(40))),
        "neighbours": Neighbours(
            png=pictures(2, 8, 90 + column),
            seeds=tuple(range(8)),
            distances=tuple(2.1 + 0.2 * i for i in range(8)),
            searched=60_000,
        ),
        "sweeps": (SWEEPS[column],),
        "training": curve((2.5, 1.4, 0.5)[column], (22, 45, 61)[column]),
    }
    return ModelResult.model_validate({"name": name, **given, **changes})


def floor() -> ModelResult:
    return ModelResult(name="real images", kind="data", summary="As many training images", scores=scores(3))


def family(name: str, recipe: str, best: float, rises: Sequence[float]) -> Family:
    runs = [
        Run(
            seed=i,
            milestones=curve(best * (1 + 0.1 * i), 2, rise, points=24),
            collapsed=f"ended at {rise:g} times its best distance" if rise > 2 else None,
        )
        for i, rise in enumerate(rises)
    ]
    return Family(name=name, recipe=recipe, steps=2400, batch=64, parameters=300_000, runs=runs)


def stability(*families: Family, processor: str = "AMD EPYC 7763") -> Stability:
    return Stability(
        made="2026-01-02T00:00:00+00:00",
        command="genzoo stability --minutes 2",
        environment=environment(processor),
        dataset="fashion-mnist",
        extractor="eyes",
        digest="0" * 64,
        n=500,
        floor={"frechet": 1.2, "label-accuracy": 94.0, "class-diversity": 96.0},
        families=families or (
            family("dcgan.tiny", "dcgan", 8.0, (1.0, 2.6, 1.2)),
            family("stylegan.tiny", "stylegan", 5.0, (1.0, 1.1, 1.05)),
            family("diffusion.tiny", "diffusion", 3.0, (1.0, 1.0, 1.0)),
        ),
    )  # fmt: skip


def results(*models: ModelResult, **changes: object) -> Results:
    given: dict[str, object] = {
        "made": "2026-01-01T00:00:00+00:00",
        "command": "genzoo compare -o benchmarks/run",
        "environment": environment(),
        "dataset": "fashion-mnist",
        "split": "test",
        "reference_n": 10_000,
        "extractor": "eyes",
        "digest": "0" * 64,
        "n": 1000,
        "repeats": 3,
        "seeds": "0-2999",
        "classes": CLASSES,
        "batch": 64,
        "models": models or (*three(), floor()),
    }
    return Results.model_validate({**given, **changes})


def three() -> tuple[ModelResult, ...]:
    """A GAN, a better one, and a diffusion model."""
    return (
        model("dcgan.fashion-mnist", 0, "dcgan"),
        model("stylegan-lite.fashion-mnist", 1, "stylegan"),
        model("ddpm.fashion-mnist", 2, "diffusion"),
    )


def full() -> Results:
    """All that a report can show."""
    return results(stability=(stability(),))
