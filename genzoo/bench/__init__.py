"""What a model costs: time, memory and energy, end to end, each measurement in a fresh process.

``measure`` is the short one that a comparison makes of every model; ``sweep`` is ``genzoo bench``, the whole protocol
over batches, dtypes and compilers. Both start ``python -m genzoo.bench``.
"""

from genzoo.bench.calls import count_flops as count_flops
from genzoo.bench.machine import environment as environment
from genzoo.bench.machine import now as now
from genzoo.bench.machine import processor as processor
from genzoo.bench.processes import measure as measure
from genzoo.bench.records import LEAST as LEAST
from genzoo.bench.records import LEAST_SECONDS as LEAST_SECONDS

__all__ = ["LEAST", "LEAST_SECONDS", "count_flops", "environment", "measure", "now", "processor"]
