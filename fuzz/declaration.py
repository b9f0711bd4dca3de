"""From a function with named arguments to a target: how an engineer declares a kernel.

A target file decorates a function whose argument names say what it takes::

    from fuzz.targets import target

    @target(dtypes=("float32", "bfloat16"), blocks=(1024, 4096), num_warps=(4, 8))
    def my_layer_norm(x, weight, bias, *, eps, block, num_warps):
        y = torch.empty_like(x)
        _kernel[(x.shape[0],)](x, weight, bias, y, ..., BLOCK=block, num_warps=num_warps)
        return y

Imported in the kernel process alone, like the files that use it.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fuzz.builtin import Call
from fuzz.case import Launch
from fuzz.spec import (
    FLOAT_DTYPES,
    ArgSpec,
    FlagSpec,
    FlagValue,
    LaunchSpace,
    OutputSpec,
    Refusal,
    ShapeKind,
    Space,
    TargetSpec,
)
from oracle.arithmetic import Arithmetic, Depth

if TYPE_CHECKING:
    from torch import Tensor

ROW_TENSORS = ("x", "residual", "z")
COLUMN_TENSORS = ("weight", "bias", "input_bias")
GIVEN_OUTPUTS = {"out": "y", "sum_out": "sum"}
SCALARS = ("eps", "normalized_shape")
FLAGS: dict[str, tuple[FlagValue, ...]] = {
    "group_size": (None,),
    "norm_before_gate": (True, False),
    "is_rms_norm": (False, True),
    "weight_offset": (0.0, 1.0),
}
"""Flags by name, with the values that are drawn where the target names none."""
LAUNCH = ("block", "num_warps", "fp_fusion", "config")
OUTPUTS: dict[str, OutputSpec] = {
    "y": OutputSpec("y"),
    "mean": OutputSpec("mean", "rows", "float32"),
    "rstd": OutputSpec("rstd", "rows", "float32"),
    "sum": OutputSpec("sum"),
}

UNKNOWN_LAUNCH = Arithmetic(depth=Depth(kind="linear", divisor=16, extra=12))
"""For kernels that choose their own launch. One warp adds n/32 elements a thread, n/16 where the
row is padded to a power of two; 10 steps join the 1024 threads that a program has at most."""

MAX_NORMALIZED_DIMS = 3


class TargetError(Exception):
    """A target that cannot be had; the message says which, and what to change."""


@dataclass(frozen=True, eq=False)
class Target:
    """A kernel under test: what the engine knows of it, and how it is called."""

    spec: TargetSpec
    call: Call


@dataclass(frozen=True, eq=False)
class _Signature:
    """The parameters of a user's function, sorted by what they stand for."""

    tensors: dict[str, inspect.Parameter]
    scalars: tuple[str, ...]
    flags: tuple[str, ...]
    launch: tuple[str, ...]


def target(
    *,
    name: str | None = None,
    dtypes: Sequence[str] = FLOAT_DTYPES,
    mixed: bool = False,
    returns: Sequence[str | OutputSpec] = ("y",),
    blocks: Sequence[int] = (),
    num_warps: Sequence[int] = (),
    fp_fusion: Sequence[bool] = (),
    whole_row: bool = False,
    configs: Sequence[Mapping[str, FlagValue]] = (),
    autotuned: Sequence[Any] = (),
    eps: float | None = None,
    strided: bool = False,
    empty_batch: bool = False,
    ranks: tuple[int, int] = (1, 5),
    max_cols: int = 65537,
    arithmetic: Arithmetic | None = None,
    refuses: Sequence[Refusal] = (),
    devices: Sequence[str] = ("cpu", "cuda"),
    owns_storage: Sequence[str] = (),
    reads_after_atomics: bool = False,
    repeatable: bool = True,
    **flags: FlagValue | tuple[FlagValue, ...],
) -> Callable[[Callable[..., Any]], Target]:
    """Make a target of a function, from the names of its arguments.

    Tensors: x, residual, z (the shape of x), weight, bias, input_bias (the normalized dims), out
    and sum_out (memory for y and sum). A default of None makes one optional. Scalars: eps,
    normalized_shape, group_size, norm_before_gate, is_rms_norm, weight_offset. Launch: block,
    num_warps, fp_fusion, config (one of ``configs``, as a dict).

    ``returns`` names what the function returns, in order: y, mean, rstd, sum, or an OutputSpec.
    ``mixed`` lets weight and bias have another dtype than x; ``strided`` lets rows have gaps and
    offsets. ``autotuned`` lists kernels decorated with ``triton.autotune``: a case pins their
    configuration. ``eps`` is the constant of a kernel that takes none. A flag that the function
    does not take, but its formula has, is given by name: ``is_rms_norm=True``.

    ``owns_storage`` names arguments whose gaps between rows the kernel may touch.
    ``reads_after_atomics`` is for kernels with locks or counters: what one program wrote, another
    may read once both have done an atomic. ``repeatable=False`` is for kernels that add floats by
    atomics: their bits depend on which program comes first.

    Dtypes: any of float32, bfloat16, float16.
    Raises: TargetError when a name is not in this vocabulary or an option does not fit.
    """

    def adapt(function: Callable[..., Any]) -> Target:
        label = name or function.__name__
        try:
            signature = _read_signature(function)
            outputs = _outputs(returns, signature)
            tuners = [_autotuner(kernel) for kernel in autotuned]
            launch = _launch_space(
                signature, blocks, num_warps, fp_fusion, whole_row, _configs(configs, tuners)
            )
            _check_dtypes(dtypes)
            spec = TargetSpec(
                name=label,
                args=_args(signature, tuple(dtypes), mixed, strided, owns_storage),
                outputs=outputs,
                arithmetic=arithmetic or _arithmetic(launch),
                flags=_flags(signature, flags),
                launch=launch,
                space=_space(signature, eps, ranks, max_cols, empty_batch),
                refuses=tuple(refuses),
                devices=tuple(devices),
                reads_after_atomics=reads_after_atomics,
                repeatable=repeatable,
                description=(inspect.getdoc(function) or "").partition("\n")[0],
            )
        except TargetError as error:
            raise TargetError(f"{error} [{label}]") from None
        return Target(spec, _adapter(function, signature, outputs, launch, tuners))

    return adapt


def _read_signature(function: Callable[..., Any]) -> _Signature:
    parameters = inspect.signature(function).parameters
    tensors = (*ROW_TENSORS, *COLUMN_TENSORS, *GIVEN_OUTPUTS)
    known = (*tensors, *SCALARS, *FLAGS, *LAUNCH)
    for parameter in parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TargetError(f"argument {parameter}: each argument must be named by itself")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise TargetError(f"argument {parameter.name}: must be accepted by keyword")
        if parameter.name not in known and parameter.default is parameter.empty:
            raise TargetError(
                f"argument {parameter.name!r} is not known, must be one of {', '.join(known)}, "
                f"or have a default"
            )
    if "x" not in parameters:
        raise TargetError("argument 'x' is missing: it is the tensor that is normalized")

    def of(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(p for p in parameters if p in names)

    return _Signature(
        tensors={p: parameters[p] for p in of(tensors)},
        scalars=of(SCALARS),
        flags=of(tuple(FLAGS)),
        launch=of(LAUNCH),
    )


def _check_dtypes(dtypes: Sequence[str]) -> None:
    for dtype in dtypes:
        if dtype not in FLOAT_DTYPES:
            raise TargetError(f"dtypes has {dtype!r}, must be of {', '.join(FLOAT_DTYPES)}")
    if not dtypes or isinstance(dtypes, str):
        raise TargetError(f"dtypes={dtypes!r}, must be a sequence of at least one name")


def _args(
    signature: _Signature,
    dtypes: tuple[str, ...],
    mixed: bool,
    strided: bool,
    owns_storage: Sequence[str],
) -> tuple[ArgSpec, ...]:
    for name in owns_storage:
        if name not in signature.tensors:
            tensors = ", ".join(signature.tensors)
            raise TargetError(f"owns_storage has {name!r}, must be a tensor argument: {tensors}")
    args = []
    for name, parameter in signature.tensors.items():
        full = name not in COLUMN_TENSORS
        own_dtype = name == "x" or (mixed and name in ("weight", "bias"))
        args.append(
            ArgSpec(
                name,
                role="out" if name in GIVEN_OUTPUTS else "in",
                shape="full" if full else "cols",
                dtypes=dtypes if own_dtype else ("x",),
                optional=parameter.default is None,
                strided=strided and full,
                owns_storage=name in owns_storage,
            )
        )
    return tuple(args)


def _outputs(returns: Sequence[str | OutputSpec], signature: _Signature) -> tuple[OutputSpec, ...]:
    if isinstance(returns, str):
        raise TargetError(f"returns={returns!r}, must be a sequence of names")
    receivers = {output: arg for arg, output in GIVEN_OUTPUTS.items() if arg in signature.tensors}
    statistics: ShapeKind = "groups" if "group_size" in signature.flags else "rows"
    outputs = []
    for item in returns:
        if isinstance(item, OutputSpec):
            outputs.append(item)
            continue
        if item not in OUTPUTS:
            raise TargetError(f"returns has {item!r}, must be of {', '.join(OUTPUTS)}")
        shape = statistics if item in ("mean", "rstd") else "full"
        outputs.append(
            dataclasses.replace(OUTPUTS[item], shape=shape, given_as=receivers.get(item))
        )
    if not outputs:
        raise TargetError("returns=(), must name at least one output")
    return tuple(outputs)


def _flags(
    signature: _Signature, given: Mapping[str, FlagValue | tuple[FlagValue, ...]]
) -> tuple[FlagSpec, ...]:
    for name in given:
        if name not in FLAGS:
            raise TargetError(f"option {name!r} is not known, nor a flag ({', '.join(FLAGS)})")
    specs = []
    for name, usual in FLAGS.items():
        if name in given:
            value = given[name]
            choices = value if isinstance(value, tuple) else (value,)
            if name not in signature.flags and len(choices) != 1:
                raise TargetError(f"{name}={choices}, must be one value: it is no argument")
            specs.append(FlagSpec(name, choices))
        elif name in signature.flags:
            specs.append(FlagSpec(name, usual))
    return tuple(specs)


def _space(
    signature: _Signature,
    eps: float | None,
    ranks: tuple[int, int],
    max_cols: int,
    empty_batch: bool,
) -> Space:
    takes_eps = "eps" in signature.scalars
    if takes_eps == (eps is not None):
        raise TargetError(
            "eps is an argument, so the option eps= must go"
            if takes_eps
            else "eps is no argument: give the kernel's own as the option eps="
        )
    several = "normalized_shape" in signature.scalars
    return Space(
        min_rank=ranks[0],
        max_rank=ranks[1],
        max_normalized_dims=MAX_NORMALIZED_DIMS if several else 1,
        max_cols=max_cols,
        empty_batch=empty_batch,
        fixed=() if eps is None else (("eps", eps),),
    )


def _arithmetic(launch: LaunchSpace) -> Arithmetic:
    return Arithmetic() if launch.blocks else UNKNOWN_LAUNCH


def _launch_space(
    signature: _Signature,
    blocks: Sequence[int],
    num_warps: Sequence[int],
    fp_fusion: Sequence[bool],
    whole_row: bool,
    configs: tuple[tuple[tuple[str, FlagValue], ...], ...],
) -> LaunchSpace:
    if whole_row and not blocks:
        # Every row then fits a block of the largest width that is drawn.
        blocks = tuple(2**k for k in range(18))
    for name, option, given in (
        ("block", "blocks", blocks),
        ("num_warps", "num_warps", num_warps),
        ("fp_fusion", "fp_fusion", fp_fusion),
    ):
        if given and name not in signature.launch:
            raise TargetError(f"{option}={tuple(given)}, but {name} is no argument")
    if configs and {"block", "num_warps"} & set(signature.launch):
        raise TargetError("block and num_warps come with the configs: they are no arguments")
    if "block" in signature.launch and not blocks:
        raise TargetError("block is an argument: give the blocks to try as blocks=(...)")
    if "config" in signature.launch and not configs:
        raise TargetError("config is an argument: give the dicts to try as configs=(...)")
    usual = LaunchSpace()
    return LaunchSpace(
        blocks=tuple(blocks),
        num_warps=tuple(num_warps) or usual.num_warps,
        fp_fusion=tuple(fp_fusion) or usual.fp_fusion,
        whole_row=whole_row,
        configs=configs,
    )


def _autotuner(kernel: Any) -> Any:
    """The autotuner of a decorated kernel, which other decorators may enclose."""
    found = kernel
    while not hasattr(found, "configs"):
        if not hasattr(found, "fn"):
            name = getattr(kernel, "__name__", type(kernel).__name__)
            raise TargetError(f"autotuned has {name}, must be kernels under triton.autotune")
        found = found.fn
    return found


def _configs(
    given: Sequence[Mapping[str, FlagValue]], tuners: Sequence[Any]
) -> tuple[tuple[tuple[str, FlagValue], ...], ...]:
    """Every choice of a configuration for each autotuned kernel, or the ones that are given."""
    if given and tuners:
        raise TargetError("configs and autotuned exclude each other")
    if given:
        return tuple(tuple(sorted(config.items())) for config in given)
    if not tuners:
        return ()
    kept = (bool, int, float, str)
    choices = []
    for chosen in itertools.product(*(tuner.configs for tuner in tuners)):
        items: list[tuple[str, FlagValue]] = []
        for tuner, config in zip(tuners, chosen, strict=True):
            prefix = f"{tuner.base_fn.__name__}." if len(tuners) > 1 else ""
            items += [
                (prefix + key, value if isinstance(value, kept) else str(value))
                for key, value in sorted(config.all_kwargs().items())
            ]
        choices.append(tuple(items))
    return tuple(choices)


@contextmanager
def _one_config(tuner: Any, config: Any) -> Iterator[None]:
    """An autotuner with a single configuration launches it without timing anything.

    Timing needs a GPU, would launch on memory that is being watched, and makes the choice of the
    configuration, and with it the bits of the result, a matter of luck.
    """
    every = tuner.configs
    tuner.configs = [config]
    try:
        yield
    finally:
        tuner.configs = every


def _adapter(
    function: Callable[..., Any],
    signature: _Signature,
    outputs: tuple[OutputSpec, ...],
    launch_space: LaunchSpace,
    tuners: Sequence[Any],
) -> Call:
    choices = list(itertools.product(*(tuner.configs for tuner in tuners))) if tuners else []

    def call(
        tensors: dict[str, Tensor | None], scalars: dict[str, Any], launch: Launch
    ) -> dict[str, Tensor]:
        arguments: dict[str, Any] = {name: tensors.get(name) for name in signature.tensors}
        arguments |= {name: scalars[name] for name in (*signature.scalars, *signature.flags)}
        for name in signature.launch:
            if name == "config":
                arguments[name] = dict(launch_space.configs[launch.config or 0])
            else:
                arguments[name] = getattr(launch, name)
        with ExitStack() as stack:
            if choices:
                for tuner, config in zip(tuners, choices[launch.config or 0], strict=True):
                    stack.enter_context(_one_config(tuner, config))
            result = function(**arguments)
        return _named(result, outputs, tensors)

    return call


def _named(
    result: Any, outputs: tuple[OutputSpec, ...], tensors: Mapping[str, Tensor | None]
) -> dict[str, Tensor]:
    """What a function returned, by output name. None stands for an output that is not there."""
    if result is None:
        # The manner of functions that only fill what they are given.
        result = tuple(tensors.get(o.given_as) if o.given_as else None for o in outputs)
    elif not isinstance(result, tuple | list):
        result = (result,)
    if len(result) != len(outputs):
        names = ", ".join(o.name for o in outputs)
        raise TypeError(f"{len(result)} values returned, must be {len(outputs)} ({names})")
    named = {o.name: t for o, t in zip(outputs, result, strict=True) if t is not None}
    if not named:
        raise TypeError("None returned, must be a tensor, or out must be an argument")
    return named
