"""Devices as a measurement sees them: their clocks, their memory, their energy.

The CPU's is exercised on every machine. Those of CUDA and MPS are written against the documented interfaces of
``torch.cuda``, ``torch.mps`` and NVML (nvidia-ml-py), which are handed in, so that the tests can watch what is asked of
them in which order without such a device.
"""

from __future__ import annotations

import contextlib
import importlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from genzoo.bench.machine import resident_bytes
from genzoo.bench.records import Clocks


class Lap(NamedTuple):
    """One call: seconds on the clock, and seconds of the device's own work, where it tells."""

    wall: float
    busy: float | None


class Device(ABC):
    """Where a model runs.

    Attributes:
        name: as torch knows it, "cuda:0".
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def wait(self) -> None:
        """Return when the device has nothing more to do."""

    @abstractmethod
    def lap(self, call: Callable[[], object]) -> Lap:
        """Time one call. The device is idle when the clock starts, and done when it stops."""

    @abstractmethod
    def held(self) -> int | None:
        """Bytes held now."""

    @abstractmethod
    def reset_peak(self) -> None:
        """Forget the peak so far."""

    @abstractmethod
    def peak(self) -> tuple[int | None, int | None]:
        """(most bytes held since the reset, most bytes reserved); None where the device does not tell."""

    def joules(self) -> float | None:
        """Energy used since some moment in the past; None where the device does not tell."""
        return None

    def clocks(self) -> Clocks | None:
        """How fast it runs now; None where it does not tell."""
        return None

    def settings(self) -> dict[str, str]:
        """What of torch and of the device speed depends on."""
        return {"float32_matmul_precision": torch.get_float32_matmul_precision()}


class Cpu(Device):
    """The host's processor."""

    def wait(self) -> None:
        pass

    def lap(self, call: Callable[[], object]) -> Lap:
        busy, wall = time.process_time(), time.perf_counter()
        call()
        return Lap(time.perf_counter() - wall, time.process_time() - busy)

    def held(self) -> int | None:
        return resident_bytes("VmRSS")

    def reset_peak(self) -> None:
        # 5: the kernel sets the peak to what is resident now (proc_pid_clear_refs). Where it may not, it stays.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    def peak(self) -> tuple[int | None, int | None]:
        return resident_bytes("VmHWM"), None

    def settings(self) -> dict[str, str]:
        backends: Any = torch.backends
        return {
            **super().settings(),
            "cpu_capability": backends.cpu.get_cpu_capability(),
            "mkldnn": str(backends.mkldnn.is_available()),
            "interop_threads": str(torch.get_num_interop_threads()),
        }


class Cuda(Device):
    """An NVIDIA GPU.

    Args:
        name: as "cuda:0".
        cuda: ``torch.cuda``.
        nvml: the module ``pynvml``, or None where it is not installed: then there is no energy and are no clocks.
    """

    #: NVML's bits (nvmlClocksEventReasons) -> words; idle and the clocks that applications set are no throttling.
    REASONS = {
        0x4: "power cap", 0x8: "hardware slowdown", 0x20: "thermal", 0x40: "hardware thermal", 0x80: "power brake",
    }  # fmt: skip

    def __init__(self, name: str, cuda: Any = torch.cuda, nvml: Any = None) -> None:
        super().__init__(name)
        self.cuda, self.nvml = cuda, nvml
        self.handle = None
        if nvml is not None:
            with contextlib.suppress(Exception):  # NVMLError, where the driver's library is missing or hidden
                nvml.nvmlInit()
                # By the serial number: NVML numbers all GPUs, torch those that CUDA_VISIBLE_DEVICES leaves.
                self.handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{cuda.get_device_properties(name).uuid}")

    def wait(self) -> None:
        self.cuda.synchronize(self.name)

    def lap(self, call: Callable[[], object]) -> Lap:
        with self.cuda.device(self.name):
            begin, end = (self.cuda.Event(enable_timing=True) for _ in range(2))
            self.wait()
            wall = time.perf_counter()
            begin.record()
            call()
            end.record()
            self.wait()
            return Lap(time.perf_counter() - wall, begin.elapsed_time(end) / 1000)

    def held(self) -> int | None:
        return int(self.cuda.memory_allocated(self.name))

    def reset_peak(self) -> None:
        # What the allocator keeps of loading would count as reserved.
        self.cuda.empty_cache()
        self.cuda.reset_peak_memory_stats(self.name)

    def peak(self) -> tuple[int | None, int | None]:
        return int(self.cuda.max_memory_allocated(self.name)), int(self.cuda.max_memory_reserved(self.name))

    def joules(self) -> float | None:
        found = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if found is None else found / 1000  # millijoules, since the driver was loaded

    def clocks(self) -> Clocks | None:
        if self.handle is None:
            return None
        reasons = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        if reasons is None:  # the name that older drivers' bindings have
            reasons = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        return Clocks(
            sm=self._ask("nvmlDeviceGetClockInfo", getattr(self.nvml, "NVML_CLOCK_SM", 1)),
            memory=self._ask("nvmlDeviceGetClockInfo", getattr(self.nvml, "NVML_CLOCK_MEM", 2)),
            temperature=self._ask("nvmlDeviceGetTemperature", getattr(self.nvml, "NVML_TEMPERATURE_GPU", 0)),
            throttled=tuple(word for bit, word in self.REASONS.items() if int(reasons or 0) & bit),
        )

    def _ask(self, name: str, *arguments: Any) -> float | None:
        """What NVML says; None where this GPU or driver has no answer."""
        if self.handle is None:
            return None
        with contextlib.suppress(Exception):  # NVMLError_NotSupported, or a binding without the function
            return float(getattr(self.nvml, name)(self.handle, *arguments))
        return None

    def settings(self) -> dict[str, str]:
        backends: Any = torch.backends
        attention = {
            "flash": backends.cuda.flash_sdp_enabled(),
            "memory-efficient": backends.cuda.mem_efficient_sdp_enabled(),
            "cudnn": backends.cuda.cudnn_sdp_enabled(),
            "math": backends.cuda.math_sdp_enabled(),
        }
        found = {
            **super().settings(),
            "cuda": str(torch.version.cuda),
            "cudnn": str(backends.cudnn.version()),
            "cudnn_benchmark": str(backends.cudnn.benchmark),
            "cudnn_allow_tf32": str(backends.cudnn.allow_tf32),
            "matmul_allow_tf32": str(backends.cuda.matmul.allow_tf32),
            "attention_enabled": ", ".join(name for name, enabled in attention.items() if enabled),
            "capability": ".".join(map(str, self.cuda.get_device_capability(self.name))),
        }
        if self.handle is not None:
            with contextlib.suppress(Exception):
                found["driver"] = str(self.nvml.nvmlSystemGetDriverVersion())
        return found


class Mps(Device):
    """Apple's GPU.

    Args:
        name: "mps".
        mps: ``torch.mps``.
    """

    def __init__(self, name: str = "mps", mps: Any = torch.mps) -> None:
        super().__init__(name)
        self.mps = mps

    def wait(self) -> None:
        self.mps.synchronize()

    def lap(self, call: Callable[[], object]) -> Lap:
        self.wait()
        wall = time.perf_counter()
        call()
        self.wait()
        return Lap(time.perf_counter() - wall, None)

    def held(self) -> int | None:
        return int(self.mps.current_allocated_memory())

    def reset_peak(self) -> None:
        self.mps.empty_cache()  # no peak is kept, but what the driver gave stays with the allocator until then

    def peak(self) -> tuple[int | None, int | None]:
        return None, int(self.mps.driver_allocated_memory())


def find(name: str) -> Device:
    """The device of that name."""
    kind = torch.device(name).type
    if kind == "cuda":
        nvml = None
        with contextlib.suppress(ImportError):
            nvml = importlib.import_module("pynvml")
        return Cuda(name if ":" in name else "cuda:0", torch.cuda, nvml)
    return Mps(name, torch.mps) if kind == "mps" else Cpu(name)


def has_units(device: str, dtype: str) -> bool:
    """Whether the device computes in a dtype, rather than imitating it: many times slower than float32 on a CPU."""
    kind = torch.device(device).type
    if dtype == "fp32" or kind == "mps":
        return True
    if kind == "cuda":
        return dtype == "fp16" or torch.cuda.is_bf16_supported(including_emulation=False)
    asked = {"bf16": ("_is_avx512_bf16_supported", "_is_amx_tile_supported"), "fp16": ("_is_amx_fp16_supported",)}
    return any(bool(getattr(torch.cpu, name)()) for name in asked[dtype] if hasattr(torch.cpu, name))
