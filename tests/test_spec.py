"""A description of an object is what it is made from again."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genzoo.errors import OptionError, UnknownName
from genzoo.frozen import Frozen
from genzoo.registry import default_zoo
from genzoo.scheduler import Scheduler
from genzoo.spec import describe, parse, plain_options

#: Those that cannot be made from their names alone, and how options of every kind are written.
SPECS = [
    ("guidance", "autoguidance:model=tiny.dcgan,scale=1.5"),
    ("guidance", "classifier:extractor=fashion-classifier"),
    ("guidance", "negative:labels=3/5"),
    ("guidance", "chain:parts=apg:scale=3;eta=0.5;norm=1e-05+interval:low=0.2;high=5+threshold"),
    ("guidance", "cfg:scale=2"),
    ("guidance", "cfg:scale=-3.5,batched=false"),
    ("guidance", "cfgpp:clip=null"),
    ("scheduler", "ddim:spacing=trailing,eta=0.5,clip=1"),
    ("scheduler", "ddim:times=999/850/736"),
    ("scheduler", "unipc:order=3,variant=bh1"),
    ("metric", "kernel:block=20"),
]


@pytest.mark.parametrize(("kind", "spec"), SPECS)
def test_a_spec_is_told_as_it_was_given(kind: str, spec: str) -> None:
    zoo = default_zoo()
    made = zoo.make(kind, spec)
    assert describe(made, zoo) == spec
    assert zoo.make(kind, describe(made, zoo)) == made


@pytest.mark.parametrize("kind", ["scheduler", "guidance", "metric"])
def test_whatever_is_registered_is_told_by_its_name(kind: str) -> None:
    zoo = default_zoo()
    for name in set(zoo.names(kind)) - {spec.partition(":")[0] for _, spec in SPECS}:
        assert describe(zoo.make(kind, name), zoo) == name


@settings(max_examples=30, deadline=None)
@given(
    eta=st.floats(0, 1),
    clip=st.none() | st.floats(1e-300, 1e6, exclude_min=True),
    times=st.lists(st.floats(0, 1e6), max_size=4),
)
def test_every_value_survives(eta: float, clip: float | None, times: list[float]) -> None:
    zoo = default_zoo()
    made = zoo.find("scheduler", "ddim")(eta=eta, clip=clip, times=times)
    if times:
        assert zoo.make("scheduler", describe(made, zoo)) == made


class Mine(Frozen):
    """Nobody registered this."""

    size: int = 3


def test_what_nobody_registered_is_told_by_its_class() -> None:
    assert describe(Mine(size=4), default_zoo()) == "Mine:size=4"


def test_options_are_json_and_are_taken_again() -> None:
    zoo = default_zoo()
    cfg, ddim = zoo.make("guidance", "cfg:scale=3"), zoo.make("scheduler", "ddim:eta=0.5")
    options = zoo.find("generator", "diffusion").Options(guidance=cfg, scheduler=ddim, steps=7, labels=(1, 2))
    plain = plain_options(options, zoo)
    assert json.loads(json.dumps(plain)) == {"steps": 7, "scheduler": "ddim:eta=0.5", "guidance": "cfg:scale=3"}
    assert plain_options({"shape": (1, 2), "device": torch.device("cpu")}, zoo) == {"shape": [1, 2], "device": "cpu"}
    assert isinstance(zoo.make("scheduler", plain["scheduler"]), Scheduler)


@pytest.mark.parametrize("tail", ["", ",eta=1,eta=2"])
def test_a_long_spec_is_told_by_its_beginning(tail: str) -> None:
    with pytest.raises(OptionError, match=r"scheduler 'ddim:x{72}\.\.\.': ") as told:
        parse(f"ddim:{'x' * 10_000}{'=1' if tail else ''}{tail}", "scheduler")
    assert len(str(told.value)) < 200
    with pytest.raises(UnknownName, match=r"no scheduler named 'y{77}\.\.\.'"):
        default_zoo().make("scheduler", "y" * 10_000)
