"""This machine and its software."""

from __future__ import annotations

import datetime
import platform
import sys
from importlib import metadata
from pathlib import Path

import torch

from genzoo.results import Environment

#: Packages whose versions a result names, beside Python and torch.
PACKAGES = ("genzoo", "numpy", "safetensors", "diffusers")


def environment(device: str) -> Environment:
    """Where a result was measured."""
    name = device
    if device.startswith("cuda"):
        name = f"{device}: {torch.cuda.get_device_name(device)}"
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return Environment(
        device=name,
        processor=processor(),
        threads=torch.get_num_threads(),
        platform=f"{platform.system()} {platform.machine()}",
        versions=versions,
    )


def now() -> str:
    """When a result is made: ISO 8601, UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


def resident_bytes(field: str) -> int | None:
    """VmRSS or VmHWM of this process from the kernel; None where the system does not tell."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    if field == "VmHWM" and sys.platform != "win32":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return None


def available_bytes() -> int | None:
    """Memory that a process may still take without swapping; None where the system does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
