"""What the strict interpreter costs: time of each kernel there over its time in Triton's own.

    python ci/interpreter_cost.py --repeats 9

Both run the same launch of the same inputs, the strict one with everything on that a campaign has
on. They take turns, and the medians are compared, so that what else the machine does hits both.
Prints one line a kernel, width and dtype; exits with 1 where a ratio exceeds ``--limit``.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from statistics import median

# Run as a file, from anywhere, without an installation.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
# Read by Triton as it is imported.
os.environ["TRITON_INTERPRET"] = "1"

import torch

from fuzz.case import Case, Launch, Recipe, TensorCase, contiguous_strides
from fuzz.execute import Executor
from fuzz.inputs import make_values
from fuzz.relations import Run
from fuzz.spec import TargetSpec
from fuzz.targets import load
from fuzz.verdict import Bits

KERNELS = (
    "layer_norm",
    "layer_norm_residual",
    "triton_layer_norm",
    "layernorm_fn",
    "rmsnorm_fn",
    "fused_bias_layer_norm",
    "native_layer_norm",
)
"""Between them they launch every kernel of ``ln_kernels``."""

WIDTHS = (1000, 4097)
DTYPES = ("float32", "bfloat16")
ROWS = 16


def make_case(spec: TargetSpec, n_cols: int, dtype: str) -> Case:
    """A case with all inputs, and outputs that the wrapper allocates."""
    shape = (ROWS, n_cols)
    tensors = []
    for arg in spec.args:
        if arg.role == "in":
            own = shape[1:] if arg.shape == "cols" else shape
            recipe = Recipe("normal")
            tensors.append(TensorCase(arg.name, dtype, own, contiguous_strides(own), values=recipe))
    flags = {flag.name: flag.choices[0] for flag in spec.flags}
    return Case(spec.name, shape, 1, tuple(tensors), flags, 1e-5, Launch(), 0)


def as_tensor(bits: Bits, dtype: str) -> torch.Tensor:
    """The values in memory of torch's own."""
    raw = torch.from_numpy(bits.copy().view("u1"))
    return raw.view(getattr(torch, dtype)).reshape(bits.shape)


def measure(
    executor: Executor, name: str, n_cols: int, dtype: str, repeats: int
) -> tuple[float, float]:
    """Seconds of one launch: in Triton's interpreter, and in the strict one."""
    target = load(name)
    case = make_case(target.spec, n_cols, dtype)
    values = make_values(case)
    absent = {arg.name: None for arg in target.spec.args}
    tensors = absent | {t.name: as_tensor(values[t.name], t.dtype) for t in case.tensors}
    scalars = {**case.flags, "eps": case.eps, "normalized_shape": case.normalized}
    stock, strict = [], []
    # The first of each rewrites the kernels' sources.
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        target.call(tensors, scalars, case.launch)
        stock.append(time.perf_counter() - begun)
        seen = executor.run(name, Run("base", case), values)
        if seen.status != "ok" or seen.hazards:
            raise RuntimeError(f"{name}: {seen.status} {seen.error} {seen.hazards}")
        strict.append(seen.seconds)
    return median(stock[1:]), median(strict[1:])


def main() -> int:
    """Measure, print, and say by the exit code whether the limit holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--limit", type=float, default=1.5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    executor = Executor("cpu")
    worst = 0.0
    print(
        f"{'kernel':<24}{'columns':>8}  {'dtype':<10}{'stock ms':>9}{'strict ms':>10}{'ratio':>7}"
    )
    for name in KERNELS:
        for n_cols in WIDTHS:
            for dtype in DTYPES:
                stock, strict = measure(executor, name, n_cols, dtype, options.repeats)
                ratio = strict / stock
                worst = max(worst, ratio)
                per_program = 1e3 / ROWS
                print(
                    f"{name:<24}{n_cols:>8}  {dtype:<10}{stock * per_program:>9.2f}"
                    f"{strict * per_program:>10.2f}{ratio:>7.2f}",
                    flush=True,
                )
    print(f"largest ratio {worst:.2f}, limit {options.limit}; ms are those of one program")
    return int(worst > options.limit)


if __name__ == "__main__":
    sys.exit(main())
