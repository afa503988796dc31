"""A module's state taken and replaced in one walk: what torch's own ways give, for modules of every kind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from genzoo.cards import Card
from genzoo.registry import default_zoo
from genzoo.state import Quick, State, layers
from genzoo.weights import assign, build


class Tables(nn.Module):
    """Buffers of both kinds, one that is none, and a frozen parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.arange(3))
        self.register_buffer("loose", torch.ones(2), persistent=False)
        self.register_buffer("none", None)
        self.register_parameter("absent", None)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)


class Tied(nn.Module):
    """One layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.second = nn.Linear(2, 2)


class Extra(nn.Linear):
    """A layer whose state holds more than its tensors."""

    told: Tensor | None = None

    def get_extra_state(self) -> Tensor:
        return torch.ones(2)

    def set_extra_state(self, state: Tensor) -> None:
        self.told = state


class Named(nn.Linear):
    """A layer whose weight has another name in files."""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}kernel"] = self.weight.detach()
        destination[f"{prefix}bias"] = self.bias.detach()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        state_dict[f"{prefix}weight"] = state_dict.pop(f"{prefix}kernel")
        super()._load_from_state_dict(state_dict, prefix, *args)


MODULES = {
    "plain": lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.ReLU(), nn.Linear(2, 2, bias=False)),
    "batch norm": lambda: nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm1d(2, affine=False, track_running_stats=False)),
    "instance norm": lambda: nn.InstanceNorm2d(2, affine=True),
    "tables": Tables,
    "tied": Tied,
    "recurrent": lambda: nn.LSTM(2, 3),
    "attention": lambda: nn.MultiheadAttention(4, 2),
    "spectral norm": lambda: spectral_norm(nn.Linear(2, 2)),
    "weight norm": lambda: weight_norm(nn.Linear(2, 2)),
    "extra state": lambda: nn.Sequential(Extra(2, 2)),
    "other names": lambda: nn.Sequential(Named(2, 2), nn.Linear(2, 2)),
}


@pytest.mark.parametrize("kind", MODULES)
def test_the_state_and_its_replacement_are_those_of_torch(kind: str) -> None:
    ours, theirs = MODULES[kind](), MODULES[kind]()
    state = State(ours)
    assert list(state.tensors) == list(ours.state_dict())
    assert all(torch.equal(tensor, ours.state_dict()[name]) for name, tensor in state.tensors.items())
    given = {name: torch.full_like(tensor, 3) for name, tensor in theirs.state_dict().items()}
    assign(ours, given, "test")
    theirs.load_state_dict(given, assign=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for (name, mine), other in zip(
        ours.state_dict(keep_vars=True).items(), theirs.state_dict(keep_vars=True).values(), strict=True
    ):
        assert torch.equal(mine, other), name
        assert (type(mine), mine.requires_grad) == (type(other), other.requires_grad), name
        assert mine.data_ptr() == other.data_ptr() or "extra_state" in name, name
    if kind == "recurrent":
        x = torch.ones(1, 1, 2)
        assert torch.equal(ours(x)[0], theirs(x)[0])
    if kind == "extra state":
        assert ours[0].told.tolist() == [3, 3]


@pytest.mark.parametrize("register", ["register_load_state_dict_pre_hook", "register_load_state_dict_post_hook"])
def test_hooks_of_loading_are_called(register: str) -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    called: list[int] = []
    getattr(module[0], register)(lambda *args: called.append(1))
    assign(module, module.state_dict(), "test")
    assert called


@pytest.mark.parametrize("trainable", [True, False])
def test_parameters_can_be_frozen_on_the_way(trainable: bool) -> None:
    for kind in ("plain", "tables", "other names"):
        module = MODULES[kind]()
        state = State(module)
        state.replace({name: tensor.clone() for name, tensor in state.tensors.items()}, trainable)
        assert {parameter.requires_grad for parameter in module.parameters()} == {trainable}


@pytest.mark.parametrize("card", default_zoo().cards(), ids=lambda card: card.name)
def test_the_state_of_every_shipped_network(card: Card) -> None:
    model = build(default_zoo(), card, materialise=False)
    state = State(model)
    assert list(state.tensors) == list(model.state_dict())
    assert state.tensors.keys() == state.places.keys() or not state._plain


def test_the_layers_are_those_of_torch_each_once() -> None:
    shared = nn.Linear(2, 2)
    module = nn.Sequential(shared, nn.Sequential(nn.ReLU(), shared), nn.ModuleDict({"a": nn.BatchNorm2d(2)}))
    module.register_module("none", None)
    module.append(module[1])
    assert len(layers(module)) == len(set(layers(module)))
    assert set(layers(module)) == set(module.modules())
    assert layers(shared) == [shared]


@pytest.mark.parametrize("base", [nn.Module, Quick])
def test_settings_are_set_as_torch_sets_them(base: type[nn.Module]) -> None:
    class Layer(base):  # type: ignore[misc,valid-type]
        def __init__(self) -> None:
            self.before = 1
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))
            self.inner = nn.Identity()
            self.register_buffer("table", torch.ones(2))
            self.scale, self.names, self.later = 2.0, ("a", "b"), None
            self.later = nn.Parameter(torch.zeros(1))

        @property
        def half(self) -> float:
            return float(self.scale / 2)

        @half.setter
        def half(self, value: float) -> None:
            self.scale = 2 * value

    layer = Layer()
    layer.half = 3
    assert (layer.before, layer.scale, layer.names) == (1, 6, ("a", "b"))
    assert list(layer.state_dict()) == ["weight", "later", "table"]
    for name in ("weight", "inner", "table"):
        with pytest.raises(TypeError, match=name):
            setattr(layer, name, 1)
