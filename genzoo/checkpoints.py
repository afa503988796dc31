"""Checkpoints of a training run: whole, without pickle, and checked before they are trusted."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.errors import NotFinite, TrainingError, WeightsError, is_newer, newer
from genzoo.files import sha256_of, write_whole
from genzoo.weights import read, write

Part = nn.Module | torch.optim.Optimizer

#: How many checkpoints stay: one more than is needed, for the newest may be damaged.
KEEP = 2

#: The version of a record. Those that name none are of the first.
VERSION = 1

#: What to do about a run whose numbers are no longer finite. Its settings are part of it: no resuming with others.
REMEDY = "the last good checkpoint is kept; train anew, into another --out, at a lower rate or with precision: fp32"


def flatten(tree: Any, path: str = "") -> tuple[dict[str, Tensor], Any]:
    """A nested state as (tensors by path, the rest as JSON-able data in which each tensor is its path)."""
    if isinstance(tree, Tensor):
        return {path: tree}, {"tensor": path}
    if isinstance(tree, Mapping):
        tensors: dict[str, Tensor] = {}
        rest = []
        for key, value in tree.items():
            inner, shape = flatten(value, f"{path}/{key}" if path else str(key))
            tensors |= inner
            rest.append([key, shape])
        return tensors, {"mapping": rest}
    if isinstance(tree, list | tuple):
        pairs = [flatten(value, f"{path}/{i}") for i, value in enumerate(tree)]
        merged = {key: tensor for inner, _ in pairs for key, tensor in inner.items()}
        return merged, {"list": [shape for _, shape in pairs]}
    return {}, {"value": tree}


def unflatten(shape: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of ``flatten``; tuples come back as lists."""
    if "tensor" in shape:
        return tensors[shape["tensor"]]
    if "mapping" in shape:
        return {key: unflatten(value, tensors) for key, value in shape["mapping"]}
    if "list" in shape:
        return [unflatten(value, tensors) for value in shape["list"]]
    return shape["value"]


class Checkpoints:
    """The checkpoints in a folder: ``step-00000500.safetensors`` with ``step-00000500.json``, which is written last.

    Args:
        folder: made at the first save.
        run: identifies the settings that the run depends on; another run's checkpoint is refused.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self.folder, self.run = folder, run

    def records(self) -> list[Path]:
        """The record of every checkpoint, damaged ones too, by step; none where the folder is not made yet."""
        return sorted(self.folder.glob("step-*.json"))

    def save(self, step: int, parts: Mapping[str, Part], progress: Mapping[str, Any]) -> None:
        """Save the state after ``step`` steps; older checkpoints beyond the last two are removed."""
        tensors, shape = flatten({name: part.state_dict() for name, part in parts.items()})
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise NotFinite(f"{name} is not finite after step {step}; {REMEDY}")
        path = self.folder / f"step-{step:08d}.safetensors"
        asset = write(path, tensors)
        record = {"version": VERSION, "step": step, "run": self.run, "sha256": asset.sha256, "shape": shape}
        record["progress"] = dict(progress)
        write_whole(path.with_suffix(".json"), json.dumps(record))
        for old in self.records()[:-KEEP]:
            # The record first: a checkpoint without one does not count.
            old.unlink()
            old.with_suffix(".safetensors").unlink(missing_ok=True)

    def restore(self, parts: Mapping[str, Part]) -> dict[str, Any] | None:
        """Load the newest checkpoint that is whole into ``parts``; returns its record, or None if there never was one.

        A damaged one is passed over with a warning; if all are damaged that is a TrainingError, not a silent restart.
        """
        records = self.records()
        if not records:
            return None
        for path in reversed(records):
            try:
                record, tensors = self._read(path)
            except (WeightsError, ValueError, KeyError, OSError) as error:
                warnings.warn(f"checkpoint {path.stem} is damaged and passed over: {error}", stacklevel=2)
                continue
            if record["run"] != self.run:
                raise TrainingError(
                    f"{path}: made with other settings; resume with its own recipe, or choose another --out"
                )
            state = unflatten(record["shape"], tensors)
            for name, part in parts.items():
                part.load_state_dict(state[name])
                if isinstance(part, torch.optim.Optimizer):
                    _restore_layout(part)
            return record
        raise TrainingError(f"{self.folder}: no checkpoint is whole; remove the folder to start anew")

    def _read(self, path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
        record = json.loads(path.read_text())
        if is_newer(version := record.get("version", VERSION), VERSION):
            # Whole, for all that is known here: no reason to go back to an older one.
            raise TrainingError(f"{path}: version {newer(version, VERSION)}")
        file = path.with_suffix(".safetensors")
        if sha256_of(file, WeightsError) != record["sha256"]:
            raise WeightsError(f"{file.name} was changed")
        return record, read(file)


def _restore_layout(optimizer: torch.optim.Optimizer) -> None:
    """Files keep one memory layout; give each moment its parameter's own again, which fused updates rely on."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
