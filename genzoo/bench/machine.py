"""This machine and its software."""

from __future__ import annotations

import datetime
import platform
import sys
from importlib import metadata
from pathlib import Path

import torch

from genzoo.fingerprint import fingerprint
from genzoo.record import Environment

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
    versions["genzoo code"] = fingerprint()
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
    told = _told("/proc/cpuinfo", "model name")
    return told or platform.processor() or platform.machine() or "unknown"


def resident_bytes(field: str) -> int | None:
    """VmRSS or VmHWM of this process from the kernel; None where the system does not tell."""
    told = _told("/proc/self/status", field)
    if told is not None:
        return _bytes(told)
    if field == "VmHWM" and sys.platform != "win32":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return None


def available_bytes() -> int | None:
    """Memory that a process may still take without swapping; None where the system does not tell."""
    told = _told("/proc/meminfo", "MemAvailable")
    return None if told is None else _bytes(told)


def _told(path: str, field: str) -> str | None:
    """What the kernel says of a field, in a file with a line "field: value" for each; None where it does not."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    parts = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in parts if key.strip() == field), None)


def _bytes(told: str) -> int:
    """A size in the kernel's words, as "1234 kB"."""
    return int(told.split()[0]) * 1024
