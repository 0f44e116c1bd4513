"""Would int8 pay in an encoder? Whisper small's products at 1,500 places, bfloat16 beside torch's own int8.

python benchmarks/int8.py: a quantised encoder also has to quantise what goes in, which is timed with it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.common import machine, median, seconds, table

PLACES, SHAPES = 1504, {"q, k, v, out": (768, 768), "fc1": (768, 3072), "fc2": (3072, 768)}


def main() -> None:
    rows = [["", "bfloat16", "int8 product", "with quantising", "int8 is faster by"]]
    for name, (wide, out) in SHAPES.items():
        x, w = torch.randn(PLACES, wide).bfloat16(), torch.randn(wide, out).bfloat16()
        packed = torch.ops.mkldnn._reorder_linear_weight(w.t().contiguous(), PLACES)
        x8, w8 = (x * 30).to(torch.int8), (w * 30).to(torch.int8)
        scales = torch.rand(out)

        def plain(x: torch.Tensor = x, packed: torch.Tensor = packed) -> torch.Tensor:
            return torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")

        def product(x8: torch.Tensor = x8, w8: torch.Tensor = w8) -> torch.Tensor:
            return torch._int_mm(x8, w8)

        def whole(x: torch.Tensor = x, w8: torch.Tensor = w8, scales: torch.Tensor = scales) -> torch.Tensor:
            rows = x.float()
            each = rows.abs().amax(dim=1, keepdim=True) / 127
            return (torch._int_mm((rows / each).round().to(torch.int8), w8) * (each * scales)).bfloat16()

        times: list[list[float]] = [[], [], []]
        for _ in range(15):
            for kept, way in zip(times, (plain, product, whole), strict=True):
                kept.append(seconds(way))
        a, b, c = (median(kept[3:]) for kept in times)
        rows.append([name, f"{a * 1000:.1f} ms", f"{b * 1000:.1f} ms", f"{c * 1000:.1f} ms", f"{a / c:.2f}×"])
    print(f"{machine('torch')}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
