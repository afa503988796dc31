"""A small classifier of Fashion-MNIST: the extractor behind the built-in metrics, and the recipe that trained it."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from genzoo.data import Images
from genzoo.errors import OptionError, TrainingError, WeightsError
from genzoo.files import sha256_of
from genzoo.frozen import Frozen, Seq
from genzoo.metric import Extractor, Features
from genzoo.recipe import Batch, LearningRate, Recipe, Trained, descend, update_average
from genzoo.weights import assign, read

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

WEIGHTS = Path(__file__).parent / "weights"


class ClassifierConfig(Frozen):
    """Channels of the three stages (the last is the width of the features), and classes."""

    channels: Seq[Annotated[int, Field(ge=1, le=1024)]] = (32, 64, 128)
    num_classes: Annotated[int, Field(ge=2, le=100_000)] = 10


class Classifier(nn.Module):
    """Two 3x3 convolutions with batch norm and ReLU per stage, max-pooling between, the mean over space at the end.

    The mean of the last stage is the feature vector; one linear layer reads the class off it.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        previous = 1
        for i, width in enumerate(config.channels):
            layers += [nn.MaxPool2d(2)] if i else []
            for _ in range(2):
                layers += [nn.Conv2d(previous, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                previous = width
        self.body = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(previous, config.num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """float32 (N, 1, H, W) in [-1, 1] -> features (N, D), logits (N, K)."""
        vectors = self.body(x).mean(dim=(2, 3))
        return vectors, self.head(self.dropout(vectors))


class ClassifierRecipeConfig(Frozen):
    """Settings of the recipe: smoothing of the labels, pixels of random shift, weight decay, moving average."""

    model: ClassifierConfig = ClassifierConfig()
    rate: LearningRate
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.05
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.05
    shift: Annotated[int, Field(ge=0, le=8)] = 2
    average: Annotated[float, Field(ge=0, le=1)] = 0.998


class ClassifierRecipe(Recipe):
    """Cross-entropy on randomly shifted and mirrored images."""

    Config: ClassVar[type[Frozen]] = ClassifierRecipeConfig

    def __init__(self, config: ClassifierRecipeConfig, images: Images, *, steps: int, device: torch.device) -> None:
        if images.shape[0] != 1 or len(images.classes) != config.model.num_classes:
            raise TrainingError(f"this classifier is for grey images of {config.model.num_classes} classes")
        self.config, self.steps, self.device = config, steps, device
        self.model = Classifier(config.model).to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.rate.peak, weight_decay=config.weight_decay, fused=True
        )

    def parts(self) -> Mapping[str, nn.Module | torch.optim.Optimizer]:
        return {"model": self.model, "average": self.average, "optimizer": self.optimizer}

    def _augment(self, images: Tensor, noise: torch.Generator) -> Tensor:
        n, _, height, width = images.shape
        reach = self.config.shift
        padded = F.pad(images, (reach,) * 4, value=-1.0)
        dy, dx = torch.randint(2 * reach + 1, (2, n), generator=noise)
        rows = (dy[:, None] + torch.arange(height))[:, None, :, None]
        columns = dx[:, None] + torch.arange(width)
        mirrored = torch.rand(n, generator=noise) < 0.5
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)[:, None, None, :]
        return padded[torch.arange(n)[:, None, None, None], 0, rows, columns]

    def step(self, batch: Batch, noise: torch.Generator) -> dict[str, float]:
        images = self._augment(batch.images, noise).contiguous(memory_format=torch.channels_last)
        _, logits = self.model(images)
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=self.config.label_smoothing)
        descend(loss, self.optimizer, self.config.rate.at(batch.step, self.steps))
        update_average(self.average, self.model, self.config.average, batch.step)
        return {"loss": float(loss.detach()), "accuracy": float((logits.argmax(1) == batch.labels).float().mean())}

    def trained(self) -> Trained:
        return Trained(self.average, metadata={"config": json.dumps(self.config.model.model_dump(mode="json"))})


class FashionClassifier(Extractor):
    """The shipped classifier: 128-wide features and an opinion of the class."""

    name = "fashion-classifier (128 wide)"
    width = 128

    def __init__(self) -> None:
        self.classes = CLASSES
        self.network = Classifier(ClassifierConfig())
        path = WEIGHTS / "classifier.safetensors"
        assign(self.network, read(path), str(path))
        self.network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._path = path

    @functools.cached_property
    def digest(self) -> str:
        return sha256_of(self._path, WeightsError)

    def extract(self, images: Tensor) -> Features:
        if images.shape[1] != 1:
            raise OptionError(f"{self.name} looks at grey images, not at {images.shape[1]} channels; give --extractor")
        vectors, logits = self.network(images.contiguous(memory_format=torch.channels_last))
        return Features(vectors, logits)

    def reference(self, dataset: str, split: str) -> Features | None:
        path = WEIGHTS / f"{dataset}-{split}.safetensors"
        if not path.exists():
            return None
        tensors: dict[str, Any] = read(path)
        return Features(tensors["vectors"].float(), tensors["logits"].float(), tensors["labels"].long())
