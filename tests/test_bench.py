"""``genzoo bench``: its rows and their rules, its devices, its sweep, and what a comparison measures."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from pydantic import ValidationError
from tiny import model_folder
from torch import nn

from genzoo.bench import calls, devices, processes, row, sweep
from genzoo.bench.records import BOUNDS, LEAST, Benchmark, Memory, Row, Task, Timing, read_benchmark
from genzoo.bench.stopwatch import repeat
from genzoo.cli.bench import bench, cells, parse_batches, parse_choices, table
from genzoo.errors import GenzooError, OptionError, ResultsError
from genzoo.generator import Generator
from genzoo.registry import default_zoo

ENOUGH = Timing(wall=(0.125,) * 10, busy=(0.125,) * 10)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(model_folder(tmp_path_factory.mktemp("model")))


def good(**changes: Any) -> Row:
    fields: dict[str, Any] = {
        "task": Task(model="m", batch=4), "status": "ok", "whole": ENOUGH, "network": ENOUGH, "nfe": 1.0,
        "memory": Memory(weights=4), "difference": 0.0,
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
        ({"difference": 0.01}, "beyond the bound"),
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


def test_quantiles_are_repetitions() -> None:
    timing = Timing(wall=tuple(float(i) for i in range(1, 11)))
    assert (timing.median, timing.quantile(0.9), timing.spread) == (5.5, 10.0, 5.0)


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
    (tmp_path / "bench.json").write_text('{"format": "genzoo.bench/9"}')
    with pytest.raises(ResultsError, match="run genzoo bench again"):
        read_benchmark(tmp_path / "bench.json")


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

    modules = calls.outermost(model, make)
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


# -- devices -----------------------------------------------------------------------------------------------------------


class Recorder:
    """Stands in for a device's module: notes what is asked of it, and gives the answers it was made with."""

    def __init__(self, **answers: Any) -> None:
        self.answers, self.asked = answers, []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or (name not in self.answers and name.startswith("nvml")):
            raise AttributeError(name)

        def answer(*args: Any, **kwargs: Any) -> Any:
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
        memory_allocated=100, max_memory_allocated=700, max_memory_reserved=900, device=lambda name: Nothing(),
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
    assert (device.held(), device.peak()) == (100, (700, 900))
    assert (device.joules(), device.clocks()) == (None, None)
    assert device.settings()["capability"] == "9.0"


def test_a_gpu_tells_its_energy_clocks_and_throttling() -> None:
    nvml = Recorder(
        nvmlInit=None,
        nvmlDeviceGetHandleByUUID=lambda uuid: f"handle of {uuid}",
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: 5000 if handle == "handle of GPU-1234" else None,
        nvmlDeviceGetClockInfo=lambda handle, kind: {1: 1980, 2: 2600}[kind],
        nvmlDeviceGetTemperature=lambda handle, sensor: 61,
        nvmlDeviceGetCurrentClocksThrottleReasons=0x1 | 0x4 | 0x20,
        nvmlSystemGetDriverVersion="570.1",
    )
    nvml.NVML_CLOCK_SM, nvml.NVML_CLOCK_MEM, nvml.NVML_TEMPERATURE_GPU = 1, 2, 0
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

    device = devices.Cuda("cuda:0", fake_cuda(), Recorder(nvmlInit=missing))
    assert (device.joules(), device.clocks()) == (None, None)


def test_apples_gpu_waits_before_and_after() -> None:
    mps = Recorder(current_allocated_memory=5, driver_allocated_memory=9)
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
    held = device.held()
    device.reset_peak()
    kept = torch.ones(8 << 20)  # 32 MB
    peak = device.peak()[0]
    if held is not None and peak is not None:
        assert peak - held > kept.nbytes // 2
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
    assert found.status == "ok", found.why
    assert found.compile_seconds is not None
    assert [kwargs for _, kwargs in asked] == [{"mode": "max-autotune", "dynamic": False}] * len(asked) != []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler calls what torch deprecates
def test_torch_compiles_a_row(tiny: str) -> None:
    found = row.measure(Task(model=tiny, batch=2, seconds=0.05, compile="default"), default_zoo())
    assert found.status == "ok", found.why


# -- processes and sweeps ----------------------------------------------------------------------------------------------


def test_a_process_that_the_system_kills_ran_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*args: Any, **kwargs: Any) -> Any:
        return SimpleNamespace(returncode=-signal.SIGKILL, stderr="", stdout="")

    monkeypatch.setattr(processes.subprocess, "run", killed)
    found = processes.measure_row(Task(model="m"), 10)
    assert found.status == "out of memory"


def test_replicas_are_torchruns(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []

    def run(command: list[str], **kwargs: Any) -> Any:
        commands.append((command, Task.model_validate_json(kwargs["env"]["GENZOO_BENCH"])))
        return SimpleNamespace(returncode=0, stderr="", stdout="a line before\n" + good().model_dump_json())

    monkeypatch.setattr(processes.subprocess, "run", run)
    task = Task(model="m", device="cuda", replicas=3)
    assert processes.measure_row(task, 10) == good()
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3", "-m", "genzoo.bench", "row"]
    assert commands == [([sys.executable, *launcher], task)]


def test_a_failure_ends_in_the_process_own_words(tmp_path: Path) -> None:
    with pytest.raises(GenzooError, match="no such file"):
        processes.measure(str(tmp_path / "none"), {}, batch=1, device="cpu")


def test_a_sweep_goes_on_where_it_stopped(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Task] = []

    def measure_row(task: Task, timeout: float) -> Row:
        measured.append(task)
        if task.batch == 0:
            return good(task=task.model_copy(update={"batch": 512}), largest=True)
        if task.batch == 8:
            return Row(task=task, status="failed", why="a bug")
        return good(task=task)

    monkeypatch.setattr(sweep, "measure_row", measure_row)
    plan = sweep.Plan((tiny,), batches=(1, 8, 0))
    *_, found = sweep.sweep(default_zoo(), plan, tmp_path)
    assert [each.task.batch for each in found.rows] == [1, 8, 512]
    assert read_benchmark(tmp_path / "bench.json") == found
    measured.clear()
    *_, again = sweep.sweep(default_zoo(), sweep.Plan((tiny,), batches=(4, 8, 0)), tmp_path)
    # The row that failed is tried again; the one of the other plan stays, after those of this one.
    assert [task.batch for task in measured] == [4, 8]
    assert [each.task.batch for each in again.rows] == [4, 8, 512, 1]
    with pytest.raises(OptionError, match="none of these models has an option 'stepz'"):
        sweep.Plan((tiny,), options={"stepz": 1}).tasks(default_zoo())
    for wrong, told in (({"bound": 5.0}, "bound"), ({"seconds": float("nan")}, "seconds"), ({"device": "x"}, "device")):
        with pytest.raises(OptionError, match=told):
            sweep.Plan((tiny,), **wrong).tasks(default_zoo())


def test_rows_of_two_machines_do_not_mix(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "measure_row", lambda task, timeout: good(task=task))
    list(sweep.sweep(default_zoo(), sweep.Plan((tiny,), batches=(1,)), tmp_path))
    other = environment().model_copy(update={"processor": "another"})
    monkeypatch.setattr(sweep, "environment", lambda device: other)
    with pytest.raises(ResultsError, match="another machine"):
        list(sweep.sweep(default_zoo(), sweep.Plan((tiny,), batches=(1,)), tmp_path))


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
    assert len(cells(good())) == 11


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
