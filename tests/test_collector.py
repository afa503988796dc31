"""The collector of cycles rests, and goes on as it did before."""

import gc

import pytest

from genzoo.collector import resting


@pytest.mark.parametrize("on", [True, False])
def test_it_rests_and_goes_on_as_before(on: bool) -> None:
    was = gc.isenabled()
    try:
        (gc.enable if on else gc.disable)()
        with resting(), resting():
            assert not gc.isenabled()
        assert gc.isenabled() is on
        with pytest.raises(KeyError), resting():
            raise KeyError
        assert gc.isenabled() is on
    finally:
        (gc.enable if was else gc.disable)()
