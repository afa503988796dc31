"""Sheets name the class of each column, and only where a column holds one."""

from __future__ import annotations

import pytest
import torch

from genzoo.sheets import COLUMNS, ROWS, sheet_of


@pytest.mark.parametrize("count", [5, 20, 200])
@pytest.mark.parametrize("kinds", [0, 1, 3, 7, 10, 11, 100])
def test_a_named_column_holds_one_class(kinds: int, count: int) -> None:
    classes = [f"class {i}" for i in range(kinds)]
    sheet = sheet_of(torch.zeros(count, 1, 4, 4, dtype=torch.uint8), classes, range(count))
    assert sheet.columns <= COLUMNS
    assert 0 < len(sheet.seeds) <= min(count, COLUMNS * ROWS)
    assert len(sheet.labels) == (sheet.columns if 0 < kinds <= COLUMNS else 0)
    if sheet.labels:
        assert [sheet.labels[i % sheet.columns] for i in sheet.seeds] == [classes[i % kinds] for i in sheet.seeds]
