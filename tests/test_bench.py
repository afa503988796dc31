"""``genzoo bench``: its rows and their rules, its devices, its sweep, and what a comparison measures."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import inspect
import json
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pynvml
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import save_file
from test_cyclegan import make_resnet
from tiny import model_folder
from torch import nn

from genzoo.bench import calls, compiler, devices, kernels, processes, row, sweep
from genzoo.bench.records import BOUNDS, LEAST, Benchmark, Compile, Memory, Row, Task, Timing, read_benchmark
from genzoo.bench.stopwatch import repeat
from genzoo.bench.timed import timed
from genzoo.cli.bench import bench, cells, parse_batches, parse_choices, table
from genzoo.cli.report import report
from genzoo.errors import GenzooError, OptionError, ResultsError
from genzoo.generator import Generator
from genzoo.registry import default_zoo
from genzoo.results import ModelResult, Results, read_results
from genzoo.weights import find_card

ROOT = Path(__file__).parent.parent
ENOUGH = Timing(wall=(0.125,) * 10, busy=(0.125,) * 10)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(model_folder(tmp_path_factory.mktemp("model")))


def good(**changes: Any) -> Row:
    fields: dict[str, Any] = {
        "task": Task(model="m", batch=4), "status": "ok", "whole": ENOUGH, "network": ENOUGH, "nfe": 1.0,
        "memory": Memory(weights=4), "difference": 0.0, "rms_difference": 0.0,
    }  # fmt: skip
    return Row(**{**fields, **changes})


# -- rows --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"whole": Timing(wall=(0.1,) * 9)}, "10 repetitions"),
        ({"whole": Timing(wall=(0.01,) * 10)}, "10 repetitions"),
        ({"whole": None}, "has a timing"),
        ({"memory": None}, "has a timing"),
        ({"difference": None}, "has a timing"),
        ({"rms_difference": None}, "has a timing"),
        ({"difference": 0.01}, "beyond the bound"),
        ({"difference": 0.0009, "rms_difference": 0.0002}, "root mean square"),
        ({"task": Task(model="m", compile="default")}, "compiling took"),
        ({"status": "failed"}, "says why"),
        ({"status": "out of memory", "why": "full"}, "has no timing"),
    ],
)
def test_a_row_that_breaks_the_rules_is_none(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        good(**changes)


def test_a_row_within_the_rules() -> None:
    assert good().images_per_second == pytest.approx(32)
    assert good(replica_seconds=(0.1, 0.2)).images_per_second == pytest.approx(60)
    # A call that is slower than the time it was given is timed as often as fits.
    assert good(task=Task(model="m", seconds=5), whole=Timing(wall=(6.0,))).images_per_second == pytest.approx(1 / 6)
    assert good(task=Task(model="m", dtype="bf16"), difference=0.4).task.limit == BOUNDS["bf16"]
    assert good(task=Task(model="m", bound=0.5), difference=0.4).task.limit == 0.5


def test_quantiles_lie_between_repetitions() -> None:
    timing = Timing(wall=tuple(float(i) for i in range(1, 11)))
    assert (timing.median, timing.quantile(0.9), timing.spread) == (5.5, pytest.approx(9.1), 4.5)


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=30), st.floats(0, 1))
def test_quantiles_are_those_of_numpy(wall: list[float], share: float) -> None:
    timing = Timing(wall=tuple(wall))
    assert timing.quantile(share) == pytest.approx(np.quantile(timing.wall, share), abs=1e-9)


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    found = Benchmark(
        made="2026-01-01T00:00:00+00:00", command="genzoo bench", environment=environment(), rows=(good(),)
    )
    found.write(tmp_path / "bench.json")
    assert read_benchmark(tmp_path / "bench.json") == found
    changed = json.loads((tmp_path / "bench.json").read_text())
    changed["rows"][0]["difference"] = 1.0
    (tmp_path / "bench.json").write_text(json.dumps(changed))
    with pytest.raises(ResultsError, match="beyond the bound"):
        read_benchmark(tmp_path / "bench.json")
    for other, words in (("1", ".*genzoo bench -o ANOTHER_FOLDER"), ("10", " is of a newer genzoo.*; update genzoo")):
        (tmp_path / "bench.json").write_text(json.dumps(changed | {"format": f"genzoo.bench/{other}"}))
        with pytest.raises(ResultsError, match=f"format 'genzoo.bench/{other}'{words}$"):
            read_benchmark(tmp_path / "bench.json")


def test_a_file_has_no_more_digits_than_a_clock(tmp_path: Path) -> None:
    """So thousands of samples stay a small file; and the rules hold of what was rounded."""
    exact = [0.00123456789 + 1e-9 * i for i in range(1000)]
    rounded = Timing(wall=tuple(exact), busy=tuple(exact))
    assert rounded.wall == pytest.approx(exact, rel=5e-4)
    assert rounded.wall[0] == 0.001235
    rows = tuple(good(whole=rounded, network=rounded) for _ in range(5))
    found = Benchmark(made="2026-01-01T00:00:00+00:00", command="genzoo bench", environment=environment(), rows=rows)
    found.write(tmp_path / "bench.json")
    assert read_benchmark(tmp_path / "bench.json") == found
    assert (tmp_path / "bench.json").stat().st_size < 5 * 4 * 1000 * 10
    # More than a second before, and a little less after.
    second = Timing(wall=(0.10004,) * 10)
    assert sum(second.wall) < 1
    assert good(whole=second).status == "ok"


def environment() -> Any:
    from genzoo.bench import environment

    return environment("cpu")


# -- the network alone -------------------------------------------------------------------------------------------------


class Walk(Generator):
    """Two evaluations of a network that has parts, and a layer of its own."""

    def __init__(self) -> None:
        super().__init__(self.Config())
        self.network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1))
        self.last = nn.Conv2d(1, 1, 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1, 8, 8

    def sample(self, noise: Any, options: Any) -> Any:
        x = noise.start(*self.shape)
        for _ in range(2):
            x = self.network(x)
        yield self.last(x)


def test_the_outermost_modules_are_replayed_call_by_call() -> None:
    model = Walk()

    def make() -> object:
        return model.generate([0, 1])

    modules = calls.Tree(model, make).outermost
    assert modules == [model.network, model.last]
    seen = calls.recorded(modules, make)
    assert [call.module for call in seen] == [model.network, model.network, model.last]
    assert seen[0].args[0].shape == (2, 1, 8, 8)
    evaluated: list[nn.Module] = []
    hook = model.network.register_forward_hook(lambda module, args, output: evaluated.append(module))
    calls.replay(seen)()
    hook.remove()
    assert len(evaluated) == 2
    # Nothing is left behind.
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_operations_are_counted_whatever_kernel_runs_them() -> None:
    model = Walk()
    frozen = Walk().requires_grad_(False)
    # 64 places, 9 taps, 1 -> 4 -> 1 channels, twice; and one 1x1 layer; a multiplication and an addition each.
    assert calls.count_flops(model, {}) == calls.count_flops(frozen, {}) == 2 * 64 * (2 * (9 * 4 + 9 * 4) + 1)


class Told(Generator):
    """A network inside a module that is told the time as a number, as a denoiser is."""

    class Timed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x: torch.Tensor, t: float, *, scale: float = 1.0) -> torch.Tensor:
            return self.network(x) * t * scale

    def __init__(self) -> None:
        super().__init__(self.Config())
        self.denoiser = self.Timed()

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1, 8, 8

    def sample(self, noise: Any, options: Any) -> Any:
        x = noise.start(*self.shape)
        for t in range(12):
            x = self.denoiser(x, float(t), scale=0.1)
            yield x


def test_what_is_compiled_is_told_tensors_alone() -> None:
    model, walk = Told(), Walk()
    tree = calls.Tree(model, lambda: model.generate([0]))
    assert (tree.outermost, tree.compilable) == ([model.denoiser], [model.denoiser.network])
    assert calls.Tree(walk, lambda: walk.generate([0])).compilable == [walk.network, walk.last]


def test_the_kernels_at_work_are_told() -> None:
    x, layer = torch.zeros(1, 4, 8, 8), nn.Conv2d(4, 4, 3)
    with kernels.Kernels() as seen, torch.inference_mode():
        layer(x)
    assert seen.settings() == {"memory_format": "contiguous", "attention": "no fused kernel"}
    with kernels.Kernels() as seen, torch.inference_mode():
        layer(x.contiguous(memory_format=torch.channels_last))
        heads = torch.zeros(1, 2, 16, 32)
        nn.functional.scaled_dot_product_attention(heads, heads, heads)
    assert seen.settings()["memory_format"] == "channels_last"
    assert "flash_attention" in seen.settings()["attention"]


# -- devices -----------------------------------------------------------------------------------------------------------


class Recorder:
    """Stands in for a device's module: notes what is asked of it, and gives the answers it was made with.

    It has the names of the real module and no others, and takes what that takes: a call that does not exist fails.
    """

    def __init__(self, real: Any, **answers: Any) -> None:
        self.real, self.answers, self.asked = real, answers, []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or (self.real is pynvml and name not in self.answers):
            raise AttributeError(name)
        real = getattr(self.real, name)

        def answer(*args: Any, **kwargs: Any) -> Any:
            inspect.signature(real).bind(*args, **kwargs)
            self.asked.append(name)
            found = self.answers.get(name)
            return found(*args, **kwargs) if callable(found) else found

        return answer


class Event:
    """A CUDA event that notes when it is recorded."""

    def __init__(self, asked: list[str], enable_timing: bool) -> None:
        self.asked = asked
        assert enable_timing

    def record(self) -> None:
        self.asked.append("record")

    def elapsed_time(self, other: Event) -> float:
        return 250.0


class Nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *args: object) -> None: ...


def fake_cuda(**more: Any) -> Recorder:
    cuda = Recorder(
        torch.cuda, memory_allocated=100, max_memory_allocated=700, max_memory_reserved=900,
        device=lambda name: Nothing(),
        get_device_properties=lambda name: SimpleNamespace(uuid="1234"), get_device_capability=(9, 0), **more,
    )  # fmt: skip
    cuda.answers["Event"] = lambda enable_timing: Event(cuda.asked, enable_timing)
    return cuda


def test_a_gpu_is_timed_by_events_with_waits_outside() -> None:
    cuda = fake_cuda()
    device = devices.Cuda("cuda:0", cuda)
    cuda.asked.clear()
    lap = device.lap(lambda: cuda.asked.append("work"))
    assert cuda.asked == ["device", "Event", "Event", "synchronize", "record", "work", "record", "synchronize"]
    assert lap.busy == 0.25
    cuda.asked.clear()
    device.reset_peak()
    assert cuda.asked == ["empty_cache", "reset_peak_memory_stats"], "what loading left reserved is not the model's"
    assert (device.held(), device.peak()) == (100, (700, 900))
    assert (device.joules(), device.clocks()) == (None, None)
    assert device.settings()["capability"] == "9.0"
    assert {"cudnn_benchmark", "cudnn_allow_tf32", "matmul_allow_tf32", "attention_enabled"} <= device.settings().keys()


def test_an_event_has_the_methods_of_the_real_one() -> None:
    assert {"record", "elapsed_time"} <= set(dir(torch.cuda.Event))
    # A build for the CPU lacks the class of a GPU's properties, and has its description all the same.
    described = (Path(torch.__file__).parent / "_C" / "__init__.pyi").read_text()
    assert "uuid: " in described.partition("class _CudaDeviceProperties:")[2].partition("\nclass ")[0]


@pytest.mark.parametrize(
    "reasons", ["nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"]
)
def test_a_gpu_tells_its_energy_clocks_and_throttling(reasons: str) -> None:
    nvml = Recorder(
        pynvml,
        nvmlInit=None,
        nvmlDeviceGetHandleByUUID=lambda uuid: f"handle of {uuid}",
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: 5000 if handle == "handle of GPU-1234" else None,
        nvmlDeviceGetClockInfo=lambda handle, kind: {1: 1980, 2: 2600}[kind],
        nvmlDeviceGetTemperature=lambda handle, sensor: 61,
        **{reasons: 0x1 | 0x4 | 0x20},
        nvmlSystemGetDriverVersion="570.1",
    )
    nvml.NVML_CLOCK_SM, nvml.NVML_CLOCK_MEM, nvml.NVML_TEMPERATURE_GPU = (
        pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM, pynvml.NVML_TEMPERATURE_GPU,
    )  # fmt: skip
    device = devices.Cuda("cuda:0", fake_cuda(), nvml)
    assert device.joules() == 5.0
    clocks = device.clocks()
    assert clocks is not None
    assert (clocks.sm, clocks.memory, clocks.temperature) == (1980, 2600, 61)
    assert clocks.throttled == ("power cap", "thermal")
    assert device.settings()["driver"] == "570.1"


def test_a_gpu_without_its_driver_library_is_measured_all_the_same() -> None:
    def missing() -> None:
        raise RuntimeError("NVML Shared Library Not Found")

    device = devices.Cuda("cuda:0", fake_cuda(), Recorder(pynvml, nvmlInit=missing))
    assert (device.joules(), device.clocks()) == (None, None)


def test_apples_gpu_waits_before_and_after() -> None:
    mps = Recorder(torch.mps, current_allocated_memory=5, driver_allocated_memory=9)
    device = devices.Mps("mps", mps)
    lap = device.lap(lambda: mps.asked.append("work"))
    assert mps.asked == ["synchronize", "work", "synchronize"]
    assert lap.busy is None
    assert (device.held(), device.peak()) == (5, (None, 9))


def test_the_cpu_tells_its_time_and_memory() -> None:
    device = devices.find("cpu")
    lap = device.lap(lambda: torch.randn(200, 200) @ torch.randn(200, 200))
    assert lap.wall > 0
    assert lap.busy is not None
    device.reset_peak()
    held, size = device.held(), 64 << 20
    # Straight from the kernel: what is made by torch may lie where earlier tests left memory, which is held already.
    with mmap.mmap(-1, size) as fresh:
        fresh[:: mmap.PAGESIZE] = b"x" * (size // mmap.PAGESIZE)
    peak = device.peak()[0]
    if held is not None and peak is not None:
        assert peak - held > size // 2
    assert device.settings()["cpu_capability"]
    assert devices.has_units("cpu", "fp32")


def test_a_timing_has_enough_repetitions_but_no_more_than_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    device = devices.find("cpu")
    monkeypatch.setattr(device, "lap", lambda call: devices.Lap(0.3, None))
    assert len(repeat(device, lambda: None, 100.0).wall) == LEAST
    assert len(repeat(device, lambda: None, 0.5).wall) == 2
    monkeypatch.setattr(device, "lap", lambda call: devices.Lap(0.05, 0.04))
    timing = repeat(device, lambda: None, 100.0)
    assert len(timing.wall) == len(timing.busy) >= 20


# -- measuring ---------------------------------------------------------------------------------------------------------


def test_a_row_is_measured_and_held_against_float32(tiny: str) -> None:
    found = row.measure(Task(model=tiny, batch=4, seconds=0.05), default_zoo())
    assert found.status == "ok", found.why
    assert found.whole is not None
    assert found.network is not None
    assert found.memory is not None
    assert found.memory.weights == sum(t.numel() * t.itemsize for t in default_zoo().load(tiny).state_dict().values())
    assert found.difference == pytest.approx(0, abs=1e-5)
    assert found.flops
    assert found.nfe == 1
    assert found.name == find_card(default_zoo(), tiny)[0].name, "as a comparison has it"


def test_pixels_that_differ_refuse_the_row(tiny: str) -> None:
    found = row.measure(Task(model=tiny, dtype="bf16", batch=2, seconds=0.05, bound=0.0, slow=True), default_zoo())
    assert (found.status, found.whole) == ("refused", None)
    assert "float32 eager" in found.why


def test_a_dtype_without_units_is_refused_unless_asked_for(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "has_units", lambda device, dtype: False)
    found = row.measure(Task(model=tiny, dtype="bf16"), default_zoo())
    assert found.status == "refused"
    assert "--slow" in found.why


def test_memory_that_runs_out_is_a_row(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: row.Subject, batch: int | None = None) -> None:
        if (batch or self.task.batch) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(row.Subject, "pixels", full)
    found = row.measure(Task(model=tiny, batch=16), default_zoo())
    assert found.status == "out of memory"
    assert "2.00 GiB" in found.why
    # The largest that fits is the last before it.
    assert row.Subject(Task(model=tiny, batch=0), default_zoo()).task.batch == 8


def test_the_most_that_fit_are_measured(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row, "MOST_BATCH", 4)
    found = row.measure(Task(model=tiny, batch=0, seconds=0.05), default_zoo())
    assert (found.status, found.task.batch, found.largest) == ("ok", 4, True), found.why
    assert found.asked.batch == 0


def test_a_model_that_fails_is_a_row(tmp_path: Path) -> None:
    found = row.measure(Task(model=str(tmp_path / "none")), default_zoo())
    assert found.status == "failed"
    assert "no such file" in found.why


def test_compiled_modules_are_the_networks(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **kwargs: asked.append((type(self).__name__, kwargs)))
    found = row.measure(Task(model=tiny, batch=2, seconds=0.05, compile="max-autotune"), default_zoo())
    # Nothing was compiled behind that call, and the row does not pass for one where something was.
    assert (found.status, found.whole) == ("refused", None)
    assert "nothing to compile" in found.why
    assert [kwargs for _, kwargs in asked] == [{"mode": "max-autotune", "dynamic": False}] * len(asked) != []


def test_pixels_that_a_fault_moves_refuse_the_row(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the dtype's own rounding: a fault in what is timed, small in every pixel, and in all of them."""
    honest = row.Subject.row

    def faulty(self: row.Subject) -> dict[str, Any]:
        found = honest(self)
        for weight in self.model.parameters():
            weight.data.mul_(2)
        return found

    monkeypatch.setattr(row.Subject, "row", faulty)
    found = row.measure(Task(model=tiny, batch=2, seconds=0.05), default_zoo())
    assert (found.status, found.whole) == ("refused", None)
    assert "from float32 eager" in found.why


def test_what_the_compiler_leaves_out_refuses_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.utils import counters

    def call() -> None:
        counters["stats"]["unique_graphs"] += 1
        counters["inductor"]["cudagraph_skips"] += 1

    monkeypatch.setattr(nn.Module, "compile", lambda self, **kwargs: None)
    device, layers = devices.find("cpu"), [nn.Linear(1, 1)]
    _, made = compiler.compiled(device, layers, "default", call)
    assert made == {"graphs": "1", "graph_breaks": "0", "cuda_graphs_skipped": "1"}
    with pytest.raises(compiler.Refused, match="CUDA graphs"):
        compiler.compiled(device, layers, "reduce-overhead", call)
    with pytest.raises(compiler.Refused, match="no module"):
        compiler.compiled(device, [], "default", call)


def test_a_module_that_is_compiled_anew_for_every_call_is_refused(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused, and not failed, which a sweep would measure again every time it goes on."""
    layer, build = nn.Linear(1, 1), nn.Module.compile
    # Without code for the CPU, which is not what is asked here.
    monkeypatch.setattr(
        nn.Module, "compile", lambda self, **kwargs: build(self, backend="eager", dynamic=kwargs["dynamic"])
    )

    def sizes(self: row.Subject, batch: int | None = None) -> None:
        for size in range(1, 20):
            layer(torch.zeros(size, 1))

    with pytest.raises(compiler.Refused, match="leave --compile off"):
        compiler.compiled(devices.find("cpu"), [layer], "default", lambda: sizes(None))
    monkeypatch.setattr(row.Subject, "pixels", sizes)
    monkeypatch.setattr(row, "Tree", lambda model, make: SimpleNamespace(compilable=[layer], outermost=[layer]))
    found = row.measure(Task(model=tiny, compile="default"), default_zoo())
    assert (found.status, found.whole) == ("refused", None)


def test_freezing_in_pieces_is_refused() -> None:
    """In pieces, the second of two modules of one class would run with the weights of the first."""

    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch._dynamo.graph_break()
            return x + 1

    module = Broken()
    with torch.no_grad(), pytest.raises(compiler.Refused, match=r"one graph of the model .*; name default"):
        compiler.compiled(devices.find("cpu"), [module], "freezing", lambda: module(torch.zeros(2)))


def test_freezing_holds_while_the_modules_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.utils import counters

    config = importlib.import_module("torch._inductor.config")
    asked: list[dict[str, Any]] = []
    seen: list[tuple[bool, bool]] = []

    def call() -> None:
        counters["stats"]["unique_graphs"] += 1
        counters["inductor"]["mkldnn_linear_weight_pack_matcher_count"] += 3
        counters["inductor"]["mkldnn_conv_weight_pack_matcher_count"] += 4
        seen.append((config.freezing, config.cpp_wrapper))

    monkeypatch.setattr(nn.Module, "compile", lambda self, **kwargs: asked.append(kwargs))
    _, made = compiler.compiled(devices.find("cpu"), [nn.Linear(1, 1)], "freezing", call)
    unguarded = {"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe}
    assert (asked, seen) == ([{"options": unguarded, "fullgraph": True, "dynamic": False}], [(True, True)])
    assert not config.freezing
    assert made["packed_weights"] == "7"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler calls what torch deprecates
def test_weights_that_did_not_freeze_refuse_the_row() -> None:
    """As where gradients are wanted, for which the compiler leaves freezing out and says nothing."""

    class Network(nn.Module):  # the compiler leaves out what torch wrote itself
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(2, 2, 3)

        def forward(self, x: torch.Tensor) -> Any:
            return self.layer(x)

    x, device, frozen, trained = torch.ones(1, 2, 4, 4), devices.find("cpu"), Network(), Network()
    with torch.no_grad():
        _, made = compiler.compiled(device, [frozen], "freezing", lambda: frozen(x))
    assert made["packed_weights"] == "1"
    with pytest.raises(compiler.Refused, match="freezing"):
        compiler.compiled(device, [trained], "freezing", lambda: trained(x))


def test_a_translator_is_measured_on_images_of_its_seeds(tmp_path: Path) -> None:
    save_file(make_resnet(4, 6, 5, "instance", channels=1), tmp_path / "g.safetensors")
    task = Task(model=str(tmp_path / "g.safetensors"), batch=2, seconds=0.05)
    found = row.measure(task, default_zoo())
    assert found.status == "ok", found.why
    assert found.flops
    subject = row.Subject(task, default_zoo())
    two, three = subject.given(2)["images"], subject.given(3)["images"]
    assert two.shape[1:] == subject.model.given_shape == (1, 256, 256)
    assert torch.equal(three[:2], two)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler calls what torch deprecates
@pytest.mark.parametrize("mode", ["default", "freezing"])
def test_torch_compiles_a_row(tiny: str, mode: Compile) -> None:
    found = row.measure(Task(model=tiny, batch=2, seconds=0.05, compile=mode), default_zoo())
    assert found.status == "ok", found.why


# -- processes and sweeps ----------------------------------------------------------------------------------------------


def test_a_process_that_the_system_kills_ran_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*args: Any, **kwargs: Any) -> Any:
        return SimpleNamespace(returncode=-signal.SIGKILL, stderr="", stdout="")

    monkeypatch.setattr(processes, "finished", killed)
    found = processes.measure_row(Task(model="m"), 10)
    assert found.status == "out of memory"


def test_replicas_are_torchruns(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []

    def run(command: list[str], environment: dict[str, str], timeout: float) -> Any:
        commands.append((command, Task.model_validate_json(environment["GENZOO_BENCH"])))
        return SimpleNamespace(returncode=0, stderr="", stdout="a line before\n" + good().model_dump_json())

    monkeypatch.setattr(processes, "finished", run)
    task = Task(model="m", device="cuda", replicas=3)
    assert processes.measure_row(task, 10) == good()
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3", "-m", "genzoo.bench", "row"]
    assert commands == [([sys.executable, *launcher], task)]


TORCHRUN = """\
W1124 14:23:20.100000 1 torch/distributed/run.py:852] a line of advice
no such file: /x; give another
W1124 14:23:20.565000 1 torch/distributed/elastic/api.py:1028] Sending process 6998 closing signal SIGTERM
E1124 14:23:20.577000 1 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: {code}) local_rank: 0
Traceback (most recent call last):
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
"""


def test_a_failed_replica_is_told_in_its_own_words() -> None:
    told = "no such file: /x; give another"
    assert processes.last_words(TORCHRUN.format(code=1), 1) == (told, False)
    assert processes.last_words(TORCHRUN.format(code=-9), 1) == (told, True)
    assert processes.last_words("a\nb\n\n", 1) == ("b", False)
    assert processes.last_words("", -9) == ("no message", True)


def test_a_process_that_takes_too_long_is_asked_to_end_first(tmp_path: Path) -> None:
    said = tmp_path / "said"
    script = (
        "import pathlib, signal, sys, time\n"
        f"def end(*_): pathlib.Path({str(said)!r}).write_text('ended'); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end); print('up', flush=True); time.sleep(60)"
    )
    with pytest.raises(subprocess.TimeoutExpired):
        processes.finished([sys.executable, "-S", "-c", script], os.environ, 5.0)
    assert said.read_text() == "ended"


def test_a_measurement_ends_with_the_sweep_that_was_killed(tmp_path: Path) -> None:
    """Left to run on, it would take its time from the next rows of the same sweep."""
    held = tmp_path / "held"
    child = (
        "import fcntl, time; from genzoo.bench.__main__ import end_with_parent\n"
        f"file = open({str(held)!r}, 'w'); fcntl.flock(file, fcntl.LOCK_EX); end_with_parent()\n"
        "file.write('up'); file.flush(); time.sleep(60)"
    )
    command = [sys.executable, "-c", child]
    parent = f"import os; from genzoo.bench.processes import finished\nfinished({command!r}, os.environ, 60)"

    def let_go() -> bool:
        with held.open() as file, contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    with subprocess.Popen([sys.executable, "-c", parent]) as process:
        wait_until(lambda: held.exists() and held.read_text() == "up")
        assert not let_go()
        process.kill()
    wait_until(let_go)


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_failure_ends_in_the_process_own_words(tmp_path: Path) -> None:
    with pytest.raises(GenzooError, match="no such file"):
        processes.measure(str(tmp_path / "none"), {}, batch=1, device="cpu")


def test_a_sweep_goes_on_where_it_stopped(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Task] = []

    card, _ = find_card(default_zoo(), tiny)
    assert card.weights is not None
    same = {"weights": card.weights.sha256}

    def measure_row(task: Task, timeout: float) -> Row:
        measured.append(task)
        if task.batch == 0:
            return good(task=task.model_copy(update={"batch": 512}), largest=True, **same)
        if task.batch == 8:
            return Row(task=task, status="failed", why="a bug")
        return good(task=task, **same)

    monkeypatch.setattr(sweep, "measure_row", measure_row)
    plan = sweep.Plan((tiny,), batches=(1, 8, 0), command="genzoo bench --batch 1,8,max", note="A note.")
    *_, found = sweep.sweep(default_zoo(), plan, tmp_path)
    assert [each.task.batch for each in found.rows] == [1, 8, 512]
    assert read_benchmark(tmp_path / "bench.json") == found
    measured.clear()
    *_, again = sweep.sweep(
        default_zoo(), sweep.Plan((tiny,), batches=(4, 8, 0), command="genzoo bench --batch 4,8,max"), tmp_path
    )
    # What is published says how each of its rows is measured again.
    assert again.command == "genzoo bench --batch 1,8,max; genzoo bench --batch 4,8,max"
    assert (found.note, again.note) == ("A note.", "A note.")
    # The row that failed is tried again; the one of the other plan stays, after those of this one.
    assert [task.batch for task in measured] == [4, 8]
    assert [each.task.batch for each in again.rows] == [4, 8, 512, 1]
    with pytest.raises(OptionError, match="none of these models has an option 'stepz'"):
        sweep.Plan((tiny,), options={"stepz": 1}).tasks(default_zoo())
    for wrong, told in (
        ({"bound": 5.0}, "bound"), ({"seconds": float("nan")}, "seconds"), ({"device": "x"}, "device"),
        ({"compiles": ("off", "reduce-overhead")}, "means CUDA graphs"),
    ):  # fmt: skip
        with pytest.raises(OptionError, match=told):
            sweep.Plan((tiny,), **wrong).tasks(default_zoo())


def test_a_model_that_was_trained_on_is_measured_again(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the same name, with the same command, into the same folder."""
    zoo, folder, measured = default_zoo(), tmp_path / "model", list[int]()
    model = zoo.load(tiny)
    model.save_pretrained(folder)

    def measure_row(task: Task, timeout: float) -> Row:
        measured.append(task.batch)
        card, _ = find_card(zoo, task.model)
        assert card.weights is not None
        return good(task=task, weights=card.weights.sha256)

    monkeypatch.setattr(sweep, "measure_row", measure_row)
    plan = sweep.Plan((str(folder),), batches=(1, 8))
    for _ in range(2):
        list(sweep.sweep(zoo, plan, tmp_path))
    assert measured == [1, 8]
    next(model.parameters()).data.add_(1)
    model.save_pretrained(folder)
    *_, found = sweep.sweep(zoo, plan, tmp_path)
    assert measured == [1, 8, 1, 8]
    assert len(found.rows) == 2


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is one")
@pytest.mark.parametrize(
    "options",
    [("--device", "mps"), ("--device", "cuda"), ("--device", "tpu"), ("--device", "cuda", "--replicas", "2"),
     ("--compile", "reduce-overhead")],
)  # fmt: skip
def test_what_is_not_there_is_refused_before_anything_is_measured(tmp_path: Path, options: tuple[str, ...]) -> None:
    """In one short line, whatever torch has to say of it."""
    done = CliRunner().invoke(bench, [*options, "-o", str(tmp_path / "out")])
    assert isinstance(done.exception, OptionError)
    assert "\n" not in str(done.exception)
    assert len(str(done.exception)) < 240
    assert "try cpu" in str(done.exception) or "give --compile default" in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_rows_of_two_machines_do_not_mix(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "measure_row", lambda task, timeout: good(task=task))
    list(sweep.sweep(default_zoo(), sweep.Plan((tiny,), batches=(1,)), tmp_path))
    other = environment().model_copy(update={"processor": "another"})
    monkeypatch.setattr(sweep, "environment", lambda device: other)
    with pytest.raises(ResultsError, match="another machine"):
        list(sweep.sweep(default_zoo(), sweep.Plan((tiny,), batches=(1,)), tmp_path))


def test_a_folder_of_an_older_version_says_how_to_go_on(tiny: str, tmp_path: Path) -> None:
    """The same command into the same folder would meet the same file again."""
    (tmp_path / "bench.json").write_text('{"format": "genzoo.bench/1"}')
    with pytest.raises(ResultsError, match="measure again with genzoo bench -o ANOTHER_FOLDER"):
        list(sweep.sweep(default_zoo(), sweep.Plan((tiny,), batches=(1,)), tmp_path))


# -- beside quality ----------------------------------------------------------------------------------------------------


def compared() -> Results:
    """What is committed of a comparison."""
    return read_results(ROOT / "benchmarks" / "results" / "fashion-mnist.json")


def timing_of(model: ModelResult, batch: int, wall: float, **changes: Any) -> Row:
    task = Task(model=model.name, batch=batch)
    whole = Timing(wall=(wall,) * 10)
    return good(**{"task": task, "whole": whole, "weights": model.weights, "options": model.options, **changes})


def test_a_benchmark_gives_its_times_to_what_was_compared() -> None:
    results = compared()
    first, other = (model for model in results.models if model.kind == "model" and model.name.startswith("d"))
    rows = (
        timing_of(first, 1, 0.2),
        timing_of(first, 8, 0.4),
        timing_of(first, 64, 64.0),
        timing_of(first, 8, 0.2, task=Task(model="m", batch=8, dtype="bf16")),
        timing_of(other, 1, 0.2, options={"another": 1}),
    )
    place = environment().model_copy(update={"processor": "another"})
    found = Benchmark(made="2026-01-01T00:00:00+00:00", command="genzoo bench", environment=place, rows=rows)
    told = {model.name: model for model in timed(results, found).models}
    speed = told[first.name].speed
    assert speed is not None
    assert (speed.median_latency, speed.batch, speed.images_per_second) == (0.2, 8, 20)
    assert [rate.batch for rate in speed.tried] == [1, 8, 64]
    # The scores are the comparison's still, so both commands are told, as one would type them; here or elsewhere.
    both = f"{results.command}; genzoo bench"
    assert (told[first.name].environment, told[first.name].command) == (place, both)
    here = timed(results, found.model_copy(update={"environment": results.environment})).models
    assert [(model.environment, model.command) for model in here if model.name == first.name] == [(None, both)]
    assert told[first.name].scores == first.scores
    assert told[other.name] == other, "its rows are of other options"
    with pytest.raises(ResultsError, match="no model of these results was timed"):
        timed(results, found.model_copy(update={"rows": rows[4:]}))


def test_models_without_a_digest_are_told_apart_by_name() -> None:
    """As pipelines of diffusers: all their weights have the same digest, none."""
    results = compared()
    model = next(model for model in results.models if model.kind == "model")
    mine, other = (model.model_copy(update={"name": f"diffusers.{x}", "weights": None}) for x in "ab")
    task = Task(model="diffusers:some/where/a")
    rows = (timing_of(mine, 1, 0.125, task=task, name=mine.name),)
    found = Benchmark(
        made="2026-01-01T00:00:00+00:00", command="genzoo bench", environment=results.environment, rows=rows
    )
    told = timed(results.model_copy(update={"models": (mine, other)}), found).models
    assert told[0].speed is not None
    assert told[0].speed.median_latency == 0.125
    assert told[1] == other
    for nameless in (None, "diffusers.c"):
        strange = found.model_copy(update={"rows": (rows[0].model_copy(update={"name": nameless}),)})
        with pytest.raises(ResultsError, match="no model of these results was timed"):
            timed(results.model_copy(update={"models": (mine, other)}), strange)


def test_a_report_takes_a_benchmark(tmp_path: Path) -> None:
    results = compared()
    first = next(model for model in results.models if model.kind == "model")
    rows = (timing_of(first, 1, 0.125),)
    path = tmp_path / "bench.json"
    Benchmark(
        made="2026-01-01T00:00:00+00:00", command="genzoo bench", environment=results.environment, rows=rows
    ).write(path)
    quality = str(ROOT / "benchmarks" / "results" / "fashion-mnist.json")
    done = CliRunner().invoke(report, [quality, str(path), "-o", str(tmp_path / "out")], catch_exceptions=False)
    assert "125 ms" in done.stdout
    others = [model.name for model in results.models if model.speed is not None and model.name != first.name]
    assert others
    assert [line.split(" keeps the short timing")[0] for line in done.stderr.splitlines()] == others
    # Whoever wrote it, and however often it is given.
    spaced = tmp_path / "spaced.json"
    spaced.write_text(json.dumps(json.loads(path.read_text()), indent=2))
    again = [quality, str(path), str(spaced), "-o", str(tmp_path / "out")]
    assert CliRunner().invoke(report, again, catch_exceptions=False).output == done.output
    with pytest.raises(OptionError, match="holds times alone"):
        CliRunner().invoke(report, [str(path), "-o", str(tmp_path / "out")], catch_exceptions=False)


# -- the command -------------------------------------------------------------------------------------------------------


def test_lists_on_the_command_line() -> None:
    assert parse_batches("1, 8,max,8") == [1, 8, 0]
    assert parse_choices("--dtype", "fp32,bf16", ("fp32", "bf16")) == ["fp32", "bf16"]
    for wrong in ("0", "1,x", "", "-1"):
        with pytest.raises(OptionError, match="--batch"):
            parse_batches(wrong)
    for wrong in ("fp64", "fp32,fp32", ""):
        with pytest.raises(OptionError, match="--dtype"):
            parse_choices("--dtype", wrong, ("fp32", "bf16"))


def test_the_table_shows_every_row() -> None:
    refused = Row(task=Task(model="other", batch=0), status="out of memory", why="it was full")
    text = table([good(largest=True), refused])
    assert "4*" in text
    assert "out of memory: it was full" in text
    assert "100.0%" in text
    once = good(task=Task(model="m", batch=4, seconds=0.1), whole=Timing(wall=(0.125,)))
    # How often it was repeated stands there, and what one repetition cannot tell does not.
    assert cells(good())[5:10] == ("10", "32", "31.25", "0", "31.25")
    assert cells(once)[5:10] == ("1", "32", "31.25", "", "")


@pytest.mark.slow
def test_the_command_measures_in_fresh_processes(tiny: str, tmp_path: Path) -> None:
    arguments = [tiny, "--batch", "1,2", "--seconds", "0.1", "-o", str(tmp_path)]
    done = CliRunner().invoke(bench, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert [each.status for each in read_benchmark(tmp_path / "bench.json").rows] == ["ok", "ok"]
    two = CliRunner().invoke(bench, [*arguments, "--replicas", "2"], catch_exceptions=False)
    assert two.exit_code == 0
    replicated = [each for each in read_benchmark(tmp_path / "bench.json").rows if each.task.replicas == 2]
    assert [len(each.replica_seconds) for each in replicated] == [2, 2]
