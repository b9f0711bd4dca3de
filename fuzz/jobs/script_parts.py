"""The fixed parts of a standalone script. Text of another program: nothing here is run.

HEAD, BUILTIN, TORCH and USER are templates for str.format; the others stand as they are.
"""

HEAD = '''
"""{title}

{message}

Case: {case}
Failure {id}; needs torch, triton and the kernel, nothing else.
"""

import base64
import inspect
import itertools
import math
import os
import pathlib
import sys
import types
import zlib

import torch

device = "cuda" if torch.cuda.is_available() else "cpu"
if device == "cpu":
    # Read while kernels are being defined. Triton's own interpreter is not faithful in all it
    # does: what is found on a GPU may not show here.
    os.environ["TRITON_INTERPRET"] = "1"
if device != "{device}":
    print("note: the fault was found on {device}, this is", device)
# Memory that is not written to holds NaN.
torch.use_deterministic_algorithms(True, warn_only=True)

DATA = {source}
RUNS = {{}}
'''

BUILTIN = """
from ln_kernels import LaunchConfig, {name}

launch = None
if LAUNCH["block"] is not None:
    launch = LaunchConfig(LAUNCH["block"], LAUNCH["num_warps"], LAUNCH["fp_fusion"] is not False)


def kernel(
    x, weight=None, bias=None, input_bias=None, residual=None, z=None, out=None, sum_out=None, *,
    eps, normalized_shape, group_size=None, return_sum=True, norm_before_gate=True,
    is_rms_norm=False,
):
    return {name}({arguments})
"""

TORCH = """
RETURNS = ["y", "mean", "rstd"]


def kernel(x, weight=None, bias=None, *, eps, normalized_shape, **_):
    return {function}(x, normalized_shape, weight, bias, eps)
"""

USER = '''
class StandIn:
    """Stands for whatever the file takes from the fuzzer: the kernel does not need it."""

    def __init__(self, *args, **kwargs):
        self.name = kwargs.get("name", args[0] if args else None)


class StandInModule(types.ModuleType):
    __path__ = []

    def __getattr__(self, name):
        return StandIn


OPTIONS = {{}}


def target(**options):
    def keep(function):
        OPTIONS[function.__name__] = options
        return function

    return keep


for name in ("fuzz", "fuzz.targets", "fuzz.spec", "oracle", "oracle.arithmetic"):
    sys.modules[name] = StandInModule(name)
sys.modules["fuzz.targets"].target = target
sys.path.insert(0, str(pathlib.Path({path}).parent))
import importlib.util

spec = importlib.util.spec_from_file_location("kernel_file", {path})
module = importlib.util.module_from_spec(spec)
sys.modules["kernel_file"] = module
spec.loader.exec_module(module)
function = module.{function}
options = OPTIONS[function.__name__]
RETURNS = [getattr(name, "name", name) for name in options.get("returns", ("y",))]


def tuner_of(kernel):
    while not hasattr(kernel, "configs"):
        kernel = kernel.fn
    return kernel


tuners = [tuner_of(kernel) for kernel in options.get("autotuned", ())]
if tuners:
    chosen = list(itertools.product(*(tuner.configs for tuner in tuners)))[LAUNCH["config"] or 0]
    for tuner, config in zip(tuners, chosen):
        tuner.configs = [config]


def kernel(**available):
    available.update(LAUNCH)
    if "configs" in options:
        available["config"] = options["configs"][LAUNCH["config"] or 0]
    names = inspect.signature(function).parameters
    for name in ("weight", "bias", "input_bias", "residual", "z", "out", "sum_out"):
        available.setdefault(name, None)
    return function(**{{name: available[name] for name in names if name in available}})
'''

TENSORS = '''
MARGIN = 512  # bytes of poisoned memory on either side of a tensor; keeps its alignment


def build(run):
    """The run's tensors in poisoned memory, and that memory as it is before the launch."""
    tensors, memory = {}, []
    for name, dtype, shape, strides, offset, alias_of, start in run["tensors"]:
        if alias_of is not None:
            tensors[name] = tensors[alias_of]
            continue
        itemsize = torch.empty((), dtype=dtype).element_size()
        reach = sum((n - 1) * s for n, s in zip(shape, strides)) + 1 if math.prod(shape) else 0
        pad = MARGIN // itemsize
        storage = torch.full(((2 * pad + offset + reach) * itemsize,), run["poison"],
                             dtype=torch.uint8)
        view = storage.view(dtype).as_strided(shape, strides, pad + offset)
        if start is not None and math.prod(shape):
            end = start + math.prod(shape) * itemsize
            data = torch.frombuffer(bytearray(DATA[start:end]), dtype=dtype).reshape(shape)
            # An expanded dim is one place in memory.
            once = tuple(slice(0, 1) if s == 0 else slice(None) for s in strides)
            view[once].copy_(data[once])
        storage = storage.to(device)
        tensors[name] = storage.view(dtype).as_strided(shape, strides, pad + offset)
        memory.append((name, start is not None, storage, storage.clone(), tensors[name]))
    return tensors, memory


def launch_run(run):
    """What the kernel returned, by name. Says so where it wrote what it must not."""
    tensors, memory = build(run)
    written = {name for name, tensor in tensors.items() if name in ("out", "sum_out")}
    aliased = {t[5] for t in run["tensors"] if t[5] is not None}
    reference = expected(run, tensors)
    result = kernel(**tensors, **SCALARS, normalized_shape=run["normalized_shape"])
    result = result if isinstance(result, (tuple, list)) else (result,)
    found = {name: value for name, value in zip(RETURNS, result) if value is not None}
    for name, is_input, storage, before, view in memory:
        after = storage.clone()
        if name in written or name in aliased:
            # Its elements may change, the memory around them may not.
            args = (view.shape, view.stride(), view.storage_offset())
            typed = before.view(view.dtype).as_strided(*args)
            after.view(view.dtype).as_strided(*args).copy_(typed)
        changed = int((after != before).sum())
        if changed:
            where = "the input" if is_input and name not in aliased else "the memory around"
            print(f"  {changed} bytes of {where} {name} changed")
    return {name: (value, reference.get(name)) for name, value in found.items()}
'''

REFERENCE = '''
def expected(run, tensors):
    """The same in plain fp64."""
    t = {name: tensor.double() for name, tensor in tensors.items()
         if name not in ("out", "sum_out") and tensor.dtype.is_floating_point}
    if "x" not in t or not run["n_cols"]:
        return {}
    rows, cols, size = run["n_rows"], run["n_cols"], run["group_size"]
    total = t["x"].reshape(rows, cols)
    if "input_bias" in t:
        total = total + t["input_bias"].reshape(-1)
    if "residual" in t:
        total = total + t["residual"].reshape(rows, cols)
    gate = None
    if "z" in t:
        z = t["z"].reshape(rows, cols)
        gate = z * torch.sigmoid(z)
    first = SCALARS.get("norm_before_gate", True) is False
    normed = total * gate if gate is not None and first else total
    groups = normed.reshape(rows, cols // size, size)
    mean = groups.mean(-1, keepdim=True)
    if SCALARS.get("is_rms_norm"):
        mean = torch.zeros_like(mean)
    rstd = 1 / torch.sqrt((groups - mean).square().mean(-1, keepdim=True) + SCALARS["eps"])
    y = ((groups - mean) * rstd).reshape(rows, cols)
    if "weight" in t:
        y = y * (t["weight"].reshape(-1) + (SCALARS.get("weight_offset") or 0.0))
    if "bias" in t:
        y = y + t["bias"].reshape(-1)
    if gate is not None and not first:
        y = y * gate
    # Statistics of groups are group-major.
    mean, rstd = mean[..., 0].t().reshape(-1), rstd[..., 0].t().reshape(-1)
    return {"y": y, "mean": mean, "rstd": rstd, "sum": total}
'''

COMPARE = """
base = None
for name in SHOWN:
    print(f"run {name}:")
    found = launch_run(RUNS[name])
    for output, (value, reference) in found.items():
        value = value.detach().cpu()
        if reference is None or not value.numel():
            continue
        reference = reference.cpu().reshape(value.shape)
        error = (value.double() - reference).abs()
        # NaN against a number is the largest error of all.
        error = torch.where(error.isnan() & (value.double().isnan() != reference.isnan()),
                            math.inf, error.nan_to_num(nan=0.0))
        worst = tuple(int(i) for i in torch.unravel_index(error.argmax(), error.shape))
        places = {"largest error": worst}
        if WANTED is not None and WANTED[0] == output and len(WANTED[1]) == value.ndim:
            places = {"found wrong": WANTED[1], **places}
        for words, at in places.items():
            print(f"  {words}: {output}{list(at)} = {value[at].item()!r},"
                  f" fp64 gives {reference[at].item()!r} (error {error[at].item():.3g})")
    y = next(iter(found.values()))[0].detach().cpu() if found else None
    if base is None:
        base = y
    elif y is not None:
        rows, cols = RUNS[name]["rows"], RUNS[name]["n_cols"]
        before = base.reshape(-1, cols)[rows if rows is not None else slice(None)]
        now = y.reshape(-1, cols)
        if before.shape == now.shape:
            differ = (before != now) & ~(before.isnan() & now.isnan())
            print(f"  {int(differ.sum())} of {differ.numel()} elements differ from the base run")
"""

REFUSED = """
try:
    result = launch_run(RUNS["base"])
except Exception as error:
    print(f"raised {type(error).__name__}: {error}")
else:
    print("accepted, and returned", {name: tuple(v.shape) for name, (v, _) in result.items()})
"""
