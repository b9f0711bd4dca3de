"""A standalone script that shows a failure with torch and the kernel alone, without this tool.

The script builds the tensors of the failing run with their strides and offsets among poisoned
memory, calls the kernel, and prints it beside a plain fp64 computation.
"""

from __future__ import annotations

import base64
import json
import textwrap
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

from fuzz.case import Case, TensorCase, describe
from fuzz.inputs import make_values, run_values
from fuzz.jobs import script_parts
from fuzz.jobs.failures import target_path
from fuzz.relations import Run, expand
from fuzz.store import Failure
from fuzz.verdict import POISON_BYTE, Bits

MAX_EMBEDDED = 200_000
"""Bytes of compressed values that a script may hold; beyond them they go to a file beside it."""

BUILTIN: dict[str, tuple[str, str, str]] = {
    # target: what is imported, its arguments, the names of what it returns
    "layer_norm": ("layer_norm", "x, weight, bias, eps, out=out, launch=launch", "y"),
    "triton_layer_norm": ("triton_layer_norm", "x, weight, bias, eps, out=out, launch=launch", "y"),
    "native_layer_norm": (
        "native_layer_norm",
        "x, normalized_shape, weight, bias, eps, out=out, launch=launch",
        "y mean rstd",
    ),
    "layer_norm_residual": (
        "layer_norm_residual",
        "x, input_bias, residual, weight, bias, eps, out=out, sum_out=sum_out, "
        "return_sum=return_sum, launch=launch",
        "y sum",
    ),
    "layernorm_fn": (
        "layer_norm_forward",
        "x, weight, bias, eps, z=z, out=out, group_size=group_size, "
        "norm_before_gate=norm_before_gate, is_rms_norm=is_rms_norm, launch=launch",
        "y mean rstd",
    ),
    "rmsnorm_fn": (
        "rmsnorm_fn",
        "x, weight, bias, z, eps, group_size, norm_before_gate, out=out, launch=launch",
        "y",
    ),
    "fused_bias_layer_norm": (
        "fused_bias_layer_norm",
        "x, input_bias, weight, bias, eps, out=out, launch=launch",
        "y",
    ),
}
TORCH: dict[str, str] = {
    "torch.native_layer_norm": "torch.native_layer_norm",
    "torch.compile": "torch.compile(torch.native_layer_norm)",
}


class ScriptError(Exception):
    """A script that cannot be written; the message says why."""


@dataclass(frozen=True)
class Script:
    """The text, and the values that are too large to stand in it (empty: they are in it)."""

    text: str
    data: bytes


def data_file(script: Path) -> Path:
    """Where the values of a script lie that are too large to stand in it."""
    return script.with_suffix(".bits")


def make_script(failure: Failure, *, path: Path | None = None) -> Script:
    """The script of a failure; ``path`` is where it will be saved.

    Raises: ScriptError when the values are too large and no path is given.
    """
    case = failure.case
    values = make_values(case)
    wanted = failure.findings[0].run if failure.findings else "base"
    runs = [run for run in expand(case) if run.name in ("base", wanted)]
    data = bytearray()
    blocks = [_run_block(run, run_values(run, case, values), data) for run in runs]
    packed = zlib.compress(bytes(data), 9)
    embedded = len(packed) <= MAX_EMBEDDED
    if not embedded and path is None:
        raise ScriptError(
            f"the values take {len(packed)} bytes: too large to print, name a file for the script"
        )
    if embedded:
        text = "\n".join(textwrap.wrap(base64.b64encode(packed).decode(), 96))
        source = f'zlib.decompress(base64.b64decode("""\n{text}\n"""))'
    elif path is not None:
        beside = f'pathlib.Path(__file__).with_name("{data_file(path).name}")'
        source = f"zlib.decompress({beside}.read_bytes())"
    head = script_parts.HEAD.format(
        title=f"Shows a fault of {case.target} with torch and the kernel alone.",
        message=failure.message.replace("\\", "\\\\").replace('"""', "'''"),
        case=describe(case),
        id=failure.id,
        source=source,
        device=failure.device,
    )
    body = script_parts.REFUSED if case.refusal is not None else script_parts.COMPARE
    parts = [
        head,
        _kernel_block(case),
        script_parts.TENSORS,
        script_parts.REFERENCE,
        *blocks,
        _main_block(failure, runs),
        body,
    ]
    return Script(
        "\n\n".join(part.strip("\n") for part in parts) + "\n", b"" if embedded else packed
    )


def _run_block(run: Run, values: dict[str, Bits], data: bytearray) -> str:
    """The tensors and scalars of one run, as a dict in the script."""
    case = run.case
    lines = [f'RUNS["{run.name}"] = dict(']
    lines.append(f"    poison=0x{POISON_BYTE[run.poison]:02X},")
    lines.append(f"    rows={None if run.rows is None else list(run.rows)!r},")
    lines.append("    tensors=[")
    for tensor in case.tensors:
        bits = values.get(tensor.name)
        start = None
        if bits is not None:
            start = len(data)
            data += bits.astype(bits.dtype.newbyteorder("<")).tobytes()
        lines.append(f"        ({_tensor(tensor)}, {start}),")
    lines.append("    ],")
    lines.append(f"    n_rows={case.n_rows}, n_cols={case.n_cols}, group_size={case.group_size},")
    lines.append(f"    normalized_shape={case.normalized!r},")
    lines.append(")")
    return "\n".join(lines)


def _tensor(tensor: TensorCase) -> str:
    return (
        f'"{tensor.name}", torch.{tensor.dtype}, {tensor.shape!r}, {tensor.strides!r}, '
        f"{tensor.offset}, {tensor.alias_of!r}"
    )


def _kernel_block(case: Case) -> str:
    scalars = {"group_size": None, **case.flags, "eps": case.eps}
    lines = [f"SCALARS = {scalars!r}", f"LAUNCH = {asdict(case.launch)!r}", ""]
    path = target_path(case.target)
    if case.target in BUILTIN:
        name, arguments, returned = BUILTIN[case.target]
        lines += [
            f"RETURNS = {returned.split()!r}",
            script_parts.BUILTIN.format(name=name, arguments=arguments),
        ]
    elif case.target in TORCH:
        lines.append(script_parts.TORCH.format(function=TORCH[case.target]))
    elif path is not None:
        function = case.target.rpartition(":")[2]
        place = json.dumps(str(path.resolve()))
        lines.append(script_parts.USER.format(path=place, function=function))
    else:
        raise ScriptError(f"target={case.target!r}: it is not known how to call it")
    return "\n".join(lines)


def _main_block(failure: Failure, runs: list[Run]) -> str:
    first = failure.findings[0] if failure.findings else None
    wanted = (first.output, first.index) if first is not None and first.run == "base" else None
    return f"SHOWN = {[run.name for run in runs]!r}\nWANTED = {wanted!r}"
