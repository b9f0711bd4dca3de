"""Targets by name: the built-in ones, and the kernels that an engineer brings in a file.

Imported in the kernel process alone, like the files it loads.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from fuzz.builtin import TARGETS, Built
from fuzz.declaration import Target, TargetError, target

__all__ = ["Target", "TargetError", "builtin_names", "load", "load_all", "place_of", "target"]

_FRAMES = 4
"""Of a failed import's traceback: the user's own lines are the last ones."""


def builtin_names() -> tuple[str, ...]:
    """The built-in targets."""
    return tuple(TARGETS)


def load(name: str) -> Target:
    """The one target of that name: a built-in one, ``file.py:function``, or a file's only one.

    Raises: TargetError saying what is wrong: no such name or file, an import error with the end of
    its traceback, a file without targets or with several.
    """
    found = load_all(name)
    if len(found) != 1:
        choices = ", ".join(t.spec.name for t in found)
        raise TargetError(f"target={name!r} holds {len(found)} targets, must be one of {choices}")
    return found[0]


def load_all(name: str) -> tuple[Target, ...]:
    """Every target that a name stands for: one, or all those of a file.

    Raises: TargetError as :func:`load` does, except for several.
    """
    path, function = _split(name)
    if path is None:
        return (Target(*_build(name)),)
    module = _import(path)
    found = {n: t for n, t in vars(module).items() if isinstance(t, Target)}
    if not found:
        raise TargetError(f"target={name!r} has no function decorated with fuzz.targets.target")
    if function is not None and function not in found:
        raise TargetError(
            f"target={name!r}: {function} is no target of the file, must be one of "
            f"{', '.join(found)}"
        )
    return tuple(
        # The name under which a stored case finds it again.
        dataclasses.replace(t, spec=dataclasses.replace(t.spec, name=f"{path.as_posix()}:{n}"))
        for n, t in found.items()
        if function in (None, n)
    )


def place_of(name: str) -> tuple[str, str]:
    """The module that defines the target of that name, and what it is called there ("": all of it).

    Raises: TargetError as :func:`load` does.
    """
    path, function = _split(name)
    if path is None:
        _build(name)
        return TARGETS[name].__module__, TARGETS[name].__name__
    return _import(path).__name__, function or ""


def _build(name: str) -> Built:
    if name not in TARGETS:
        raise TargetError(
            f"target={name!r}, must be one of {', '.join(TARGETS)}, or a path to a .py file"
        )
    try:
        return TARGETS[name]()
    except Exception as error:
        raise TargetError(_import_failure(name, error)) from error


def _import_failure(name: str, error: BaseException) -> str:
    tail = "".join(traceback.format_exception(error, limit=-_FRAMES)).rstrip()
    return f"target={name!r} cannot be imported:\n{tail}"


def _split(name: str) -> tuple[Path | None, str | None]:
    if name.endswith(".py"):
        return Path(name), None
    head, separator, function = name.rpartition(".py:")
    return (Path(head + ".py"), function) if separator else (None, None)


def _import(path: Path) -> ModuleType:
    """Import a file, once for a process, under a name of its own."""
    if not path.is_file():
        raise TargetError(f"target={str(path)!r}, must be a file: it does not exist")
    resolved = path.resolve()
    digest = hashlib.sha256(str(resolved).encode()).hexdigest()[:8]
    module_name = f"ln_fuzz_target_{path.stem}_{digest}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, resolved)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Triton looks up a kernel's globals through its module, and the file's neighbours are found
    # as when Python runs it as a script.
    sys.modules[module_name] = module
    if str(resolved.parent) not in sys.path:
        sys.path.insert(0, str(resolved.parent))
    try:
        spec.loader.exec_module(module)
    except TargetError as error:
        del sys.modules[module_name]
        raise TargetError(f"target={str(path)!r}: {error}") from error
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        raise TargetError(_import_failure(str(path), error)) from error
    return module
