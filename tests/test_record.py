"""How records lie in a file."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Literal

from hypothesis import given
from hypothesis import strategies as st

from genzoo.frozen import Number, Seq
from genzoo.record import Record

PLAIN: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


class Some(Record):
    COMMAND: ClassVar[str] = "genzoo some"
    FILE: ClassVar[str] = "some.json"

    format: Literal["genzoo.some/1"] = "genzoo.some/1"
    samples: Seq[Number] = ()
    points: Seq[dict[str, Any]] = ()


def test_every_field_has_a_line_and_so_has_a_list_of_numbers() -> None:
    record = Some(samples=(1.5, 2e-7, 3), points=({"name": "ä", "at": ["x", None]}, {}))
    assert record.to_json() == (
        """{
 "format": "genzoo.some/1",
 "samples": [1.5,2e-07,3.0],
 "points": [
  {
   "name": "ä",
   "at": ["x",null]
  },
  {}
 ]
}
"""
    )


@given(PLAIN)
def test_it_is_json_of_the_same_values(value: Any) -> None:
    record = Some(points=({"value": value},))
    assert json.loads(record.to_json()) == record.model_dump(mode="json")
