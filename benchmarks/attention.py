"""How long each kernel takes for attention on this device, and which one is chosen by that.

    python -m benchmarks.attention [--device auto] [--dtypes float32,bfloat16] [--tiny]

Milliseconds of the cases that are measured when a card is first used (`pipelines/attention.py`), and which kernel of all the product
would take; `math` is the plain definition, for comparison. What cannot be used says why.

Prints a table and, last, one JSON document.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from typing import Any
from unittest import mock

import torch
from torch.nn.attention import SDPBackend

from pipelines import attention
from pipelines.attention import CASES, KERNELS, SMALL, Case, Timed, best, measured
from pipelines.memory import choose_placement

WITH_MATH = attention.BACKENDS | {"math": SDPBackend.MATH}


def rows_of(device: torch.device, dtype: torch.dtype, cases: tuple[Case, ...]) -> list[dict[str, Any]]:
    rows = []
    with mock.patch.dict(attention.BACKENDS, WITH_MATH):
        for name in (*KERNELS, "math"):
            found = [measured(device, dtype, [name], [case])[0] for case in cases]
            problem = next((one.problem for one in found if one.seconds is None), "")
            seconds = [] if problem else [one.seconds for one in found]
            rows.append({"dtype": str(dtype).removeprefix("torch."), "kernel": name, "seconds": seconds, "problem": problem})
    usable = [row for row in rows if row["kernel"] in KERNELS]
    chosen = best([Timed(row["kernel"], sum(row["seconds"]) or None, row["problem"]) for row in usable])
    return [row | {"is_chosen": row["kernel"] == chosen} for row in rows]


def table(rows: list[dict[str, Any]], cases: tuple[Case, ...]) -> str:
    titles = [f"{one.batch}x{one.tokens}x{one.heads}x{one.width}" for one in cases]
    lines = [f"| dtype | kernel | {' | '.join(titles)} | all ms |", "| --- | --- |" + " --- |" * (len(cases) + 1)]
    for row in rows:
        name = f"**{row['kernel']}**" if row["is_chosen"] else row["kernel"]
        cells = [f"{1000 * one:.2f}" for one in (*row["seconds"], sum(row["seconds"]))] if row["seconds"] else [row["problem"][:80]]
        lines.append(f"| {row['dtype']} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.attention", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtypes", default="", help="separated by commas (default: the device's own)")
    parser.add_argument("--tiny", action="store_true", help="cases that take no time")
    options = parser.parse_args(arguments)
    placement, cases = choose_placement(options.device, "sdpa"), SMALL if options.tiny else CASES
    dtypes = [getattr(torch, name) for name in options.dtypes.split(",")] if options.dtypes else [placement.dtype]
    rows = [row for dtype in dtypes for row in rows_of(placement.device, dtype, cases)]
    print(table(rows, cases) + "\n")
    device = torch.cuda.get_device_name(placement.device) if placement.device.type == "cuda" else platform.processor() or platform.machine()
    print(json.dumps({"benchmark": "attention", "device": device, "torch": torch.__version__, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
