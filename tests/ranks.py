"""What ``test_distributed`` runs on every process: python -m torch.distributed.run ... ranks.py OUT THREADS."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tiny import squares
from torch import Tensor, nn

from genzoo.checkpoints import flatten
from genzoo.distributed import Replicas, World, joined
from genzoo.errors import GenzooError
from genzoo.recipe import Batch, LearningRate, Recipe, Trained, clip_gradients
from genzoo.registry import default_zoo
from genzoo.samples import sample
from genzoo.weights import write

BATCH, STEPS = 8, 4


class Plain(Recipe):
    """A classifier without noise and without statistics over a batch; it reads its gradients before the update."""

    def __init__(self, config: Any, images: Any, *, steps: int, device: torch.device) -> None:
        torch.manual_seed(0)
        layers = nn.Conv2d(1, 6, 3), nn.SiLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(4 * 28 * 28, 2)
        self.model = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-2)

    def parts(self) -> Mapping[str, nn.Module | torch.optim.Optimizer]:
        return {"model": self.model, "optimizer": self.optimizer}

    def step(self, batch: Batch, noise: torch.Generator) -> dict[str, float]:
        self.optimizer.zero_grad(set_to_none=batch.step % 2 == 0)
        loss = torch.nn.functional.cross_entropy(self.model(batch.images), batch.labels)
        loss.backward()
        norm = clip_gradients(self.model.parameters(), 0.1)
        self.optimizer.step()
        return {"loss": float(loss.detach()), "norm": norm}

    def trained(self) -> Trained:
        return Trained(self.model)


def recipe_of(family: str, images: Any) -> Recipe:
    """A tiny recipe of a family, with everything in it that a process could do differently from another."""
    if family == "plain":
        return Plain(None, images, steps=STEPS, device=torch.device("cpu"))
    size = {"image_size": 32, "channels": 1, "num_classes": 2}
    rate = LearningRate(peak=1e-3).model_dump()
    settings: dict[str, dict[str, Any]] = {
        "dcgan": {"model": {**size, "latent": 8, "width_g": 4, "width_d": 4}, "rate": rate, "r1": 1.0, "r1_every": 2},
        "stylegan": {
            "model": {**size, "base": 8, "latent": 8, "mapping_layers": 2, "widths": [8, 8, 8]},
            "rate": rate,
            "r1_every": 2,
            "path_length": 1.0,
            "path_every": 2,
            "augment": {"probability": 0.3, "horizon": 100},
        },
    }
    cls = default_zoo().find("recipe", family)
    config = cls.Config.model_validate_json(json.dumps(settings[family]), strict=True)
    made: Recipe = cls(config, images, steps=STEPS, device=torch.device("cpu"))
    return made


def trained(family: str, world: World) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """The state after some steps, and what they told."""
    images = squares(BATCH * STEPS, 32)
    torch.manual_seed(0)
    recipe = recipe_of(family, images)
    replicas = Replicas(world, recipe.parts())
    told = []
    for step in range(STEPS):
        rows = world.part(torch.arange(step * BATCH, (step + 1) * BATCH))
        noise = torch.Generator().manual_seed(100 * step + world.rank)
        told.append(world.means(recipe.step(Batch(images.floats(rows), images.labels[rows], step), noise)))
        replicas.after_step()
    tensors, _ = flatten({name: part.state_dict() for name, part in recipe.parts().items()})
    return tensors, told


def meetings(world: World) -> dict[str, Any]:
    """What each way of talking gives this process."""

    def refuse() -> None:
        raise GenzooError("the first process says no")

    try:
        refused = str(world.by_first(refuse))
    except GenzooError as error:
        refused = str(error)
    world.wait()
    return {
        "world": [world.rank, world.size, world.first, world.device],
        "share": world.share(list(range(7))),
        "part": world.part(torch.arange(8)).tolist(),
        "by_first": world.by_first(lambda: {"told by": world.rank, "text": "ü\n" * 1000}),
        "refused": refused,
        "any": [world.any(False), world.any(world.rank == 1), world.any(True)],
        "means": world.means({"b": float(world.rank), "a": 5.0}),
        "infinite": repr(world.means({"x": float("nan") if world.rank else 1.0})),
    }


def main(out: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    with joined() as world:
        told: dict[str, Any] = {"meetings": meetings(world)}
        for family in ("plain", "dcgan", "stylegan"):
            tensors, told[family] = trained(family, world)
            write(out / f"{family}-{world.rank}.safetensors", tensors)
        events = sample(default_zoo(), str(out / "gan"), out / "samples", count=23, shard=5, batch=4, world=world)
        told["samples"] = [(progress.done, progress.mine) for progress in events]
    told["threads"] = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    (out / f"rank-{world.rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
