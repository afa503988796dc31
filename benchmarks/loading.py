"""How long a model of 450 MB takes to load, and how much memory: genzoo and diffusers in turn, each in a fresh process.

    python benchmarks/loading.py --out benchmarks/results/loading.json

The folder is a DDPM pipeline with the configuration of google/ddpm-cat-256 and random weights, written by diffusers; it
lies in the page cache, so that both are measured, and not the disk. Every pair is two fresh processes, every other time
in the other order; what is given is the median over the pairs, and of the ratio a 95 % interval of the median too.

What stands outside of ``load``, the first load of a process, is every import, of both alike: a process of each tells
which modules its first load imported, and the others import these before the clock starts (of diffusers its guiders and
six schedulers, of genzoo the format and the network that the folder needs, which a user never imports by hand, and the
plugins' own packages). What a module makes of itself then stands outside as well, as genzoo's validators of cards and
of the diffusion model do; that genzoo finds its plugins stands inside. ``start`` counts all of it, from the start of
the process; ``again`` is once more in the same process.

genzoo's first load of a file reads every weight to check it (``cold``); the next ones remember that. Both leave reading
the weights to the first call, which is measured too, on one image of 32 pixels, and the ``second``.

diffusers maps safetensors by itself, and takes its way of little memory where ``accelerate`` is installed: the version
stands in the file, null without it.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

#: google/ddpm-cat-256, key by key.
CONFIG: dict[str, Any] = {
    "act_fn": "silu",
    "attention_head_dim": None,
    "block_out_channels": [128, 128, 256, 256, 512, 512],
    "center_input_sample": False,
    "down_block_types": ["DownBlock2D"] * 4 + ["AttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "in_channels": 3,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-06,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 256,
    "time_embedding_type": "positional",
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D"] + ["UpBlock2D"] * 4,
}

KINDS = ("genzoo", "diffusers")

#: What is measured in seconds: its ratio is given.
TIMES = ("load", "work", "again", "start", "first", "second")


def by_genzoo() -> Callable[[str], Any]:
    """Import what a user does; returns the loader of a folder, which gives what takes an image and a time."""
    import genzoo

    return lambda folder: functools.partial(genzoo.load(folder).denoiser, condition={})


def by_diffusers() -> Callable[[str], Any]:
    """The same for the library that wrote the folder."""
    warnings.simplefilter("ignore")
    from diffusers import DDPMPipeline

    return lambda folder: DDPMPipeline.from_pretrained(folder).unet


def peak() -> int:
    """The largest memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def imported(kind: str, folder: str) -> list[str]:
    """The modules that a first load imports, in this process, in the order in which it does."""
    import torch  # noqa: F401

    load = by_genzoo() if kind == "genzoo" else by_diffusers()
    before = set(sys.modules)
    load(folder)
    return [name for name in sys.modules if name not in before]


def measure(kind: str, folder: str, started: float, modules: Sequence[str] = ()) -> dict[str, float]:
    """Load once, in this process, once ``modules`` are imported; seconds and megabytes."""
    import torch

    load = by_genzoo() if kind == "genzoo" else by_diffusers()
    for name in modules:
        importlib.import_module(name)
    began, worked = time.perf_counter(), time.process_time()
    network = load(folder)
    took, work, now = time.perf_counter() - began, time.process_time() - worked, time.time()
    del network
    began = time.perf_counter()
    network = load(folder)
    again = time.perf_counter() - began
    calls = []
    for _ in range(2):
        began = time.perf_counter()
        with torch.inference_mode():
            network(torch.zeros(1, 3, 32, 32), torch.tensor(500))
        calls.append(time.perf_counter() - began)
    return {
        "load": took,
        "work": work,
        "again": again,
        "start": now - started,
        "first": calls[0],
        "second": calls[1],
        "peak": peak() / 1e6,
    }


def write_pipeline(folder: Path) -> None:
    """The pipeline that both read, in the layout that both know."""
    warnings.simplefilter("ignore")
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    DDPMPipeline(UNet2DModel(**CONFIG), DDPMScheduler()).save_pretrained(folder)


def run(what: str, kind: str, folder: Path, cache: Path, *more: str) -> Any:
    """``imported`` or ``measure`` in a fresh process."""
    command = [sys.executable, __file__, "--inside", what, kind, str(folder), *more]
    # Modules are compiled once and for all, as where a library is installed, whatever this shell says of that.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, capture_output=True, text=True, env={**kept, "GENZOO_CACHE": str(cache)})
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(pairs: int, kept: Path | None) -> dict[str, Any]:
    """All measurements, and the medians of both with their ratio; ``kept`` is a folder for the pipeline to stay in."""
    from genzoo.bench.machine import environment
    from genzoo.plugins import version_of
    from genzoo.uncertainty import median_interval

    with tempfile.TemporaryDirectory() as name:
        folder, cache = kept or Path(name) / "pipeline", Path(name) / "cache"
        if not folder.exists():
            write_pipeline(folder)
            time.sleep(3)  # a file younger than that is checked every time
        size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
        # That compiles the modules too, and fills the page cache. genzoo checks the file anew in a cache of its own.
        modules = {kind: run("imported", kind, folder, Path(name) / "other") for kind in KINDS}

        def measured(kind: str) -> dict[str, float]:
            found: dict[str, float] = run("measure", kind, folder, cache, repr(time.time()), *modules[kind])
            return found

        cold = measured("genzoo")
        rounds = [{kind: measured(kind) for kind in (KINDS if i % 2 else KINDS[::-1])} for i in range(pairs)]
    medians = {
        kind: {what: statistics.median(one[kind][what] for one in rounds) for what in rounds[0][kind]} for kind in KINDS
    }
    ratios = {what: [one["genzoo"][what] / one["diffusers"][what] for one in rounds] for what in TIMES}
    return {
        "format": "genzoo.loading/1",
        "command": f"python benchmarks/loading.py --pairs {pairs}",
        "environment": environment("cpu").model_dump(mode="json"),
        "accelerate": version_of("accelerate") if find_spec("accelerate") else None,
        "modules imported before": {kind: len(names) for kind, names in modules.items()},
        "bytes": size,
        "cold": cold,
        "medians": medians,
        "ratios": {what: statistics.median(each) for what, each in ratios.items()},
        "intervals": {what: median_interval(each) for what, each in ratios.items()},
        "rounds": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7, help="fresh processes of each, in turn")
    parser.add_argument("--folder", type=Path, help="where the pipeline is written, or lies since an earlier run")
    parser.add_argument("--out", type=Path, help="a JSON file for all measurements")
    parser.add_argument("--inside", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        what, kind, folder, *more = given.inside
        inside = measure(kind, folder, float(more[0]), more[1:]) if what == "measure" else imported(kind, folder)
        print(json.dumps(inside))
        return
    found = compare(given.pairs, given.folder)
    words = {
        "load": "s to load",
        "work": "s of CPU time to load",
        "again": "s to load once more in the same process",
        "start": "s from the start of the process",
        "first": "s of the first call",
        "second": "s of the second call",
        "peak": "MB at most, after the first call, libraries included",
    }
    for what, text in words.items():
        ours, theirs = (found["medians"][kind][what] for kind in KINDS)
        ratio = " " * 23
        if what in TIMES:
            low, high = found["intervals"][what]
            ratio = f"ratio {found['ratios'][what]:.2f} [{low:.2f}, {high:.2f}]"
        print(f"{ours:9.3f} genzoo {theirs:9.3f} diffusers  {ratio}  {text}")
    print(f"{found['cold']['load']:8.3f} genzoo, the first time  s to load, {found['cold']['work']:.3f} of CPU time")
    if given.out:
        from genzoo.files import write_whole

        write_whole(given.out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
