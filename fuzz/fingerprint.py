"""What a target's code consists of: all that it calls or reads of a repository, as digests.

The sources are followed, and not the objects alone: an interpreted kernel and a compiled one then
have one fingerprint, and comments, docstrings and formatting leave none. Where a name cannot be
followed, the whole file counts. Objects tell what sources do not: which function a closure holds,
and what a table was filled with.

Asked in the kernel process, read elsewhere: imports neither targets nor torch by itself.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import os
import sys
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

import oracle
from fuzz.sources import Chain, Imported, References, Source, first_line, last_line, normalised

if TYPE_CHECKING:
    from fuzz.declaration import Target

HARNESS = (Path(__file__).resolve().parent, Path(oracle.__file__).resolve().parent)
"""The running program's own packages, which are under test nowhere."""

ADAPTERS = Path("fuzz/builtin.py")
"""What launches this project's kernels, by its place in the repository: under test like them."""

WHOLE = "*"
"""Stands for a name where a whole file counts."""

ON_IMPORT = "<module>"
"""Stands for the statements that a module runs while it is imported."""

REFLECTION = frozenset(("exec", "eval", "globals", "__import__"))
"""Built-in functions that reach what no name tells."""

LOOKUPS = ("importlib.import_module", "importlib.util.", "runpy.", "sys.modules", "torch.ops")
"""How the names begin of what else does so."""

NO_LOOKUPS = ("torch.ops.aten", "torch.ops.prims")
"""Torch's own operators, which are not under test."""

_OF_ALL_MODULES = frozenset(("__name__", "__file__", "__doc__", "__package__", "__path__"))
"""What a module has without any statement of its own."""

_INSTALLED = frozenset(("site-packages", "dist-packages"))
"""Folders of an environment, which may lie in the repository."""

_STANDARD_LIBRARY = Path(os.__file__).resolve().parent

_JITTED = frozenset(("JITFunction", "InterpretedFunction"))
"""Triton's classes of what it compiles, and of what its interpreter runs instead."""

_WRAPPED = ("__wrapped__", "fn", "base_fn", "_torchdynamo_orig_callable")
"""Attributes in which decorators (Triton's, functools', torch's) keep what they decorate."""

_PLAIN = (str, bytes, int, float, complex, type(None))


@dataclass(frozen=True)
class Part:
    """One definition. ``name`` is ``module:name``, ``file`` as the repository names it.

    ``kernel``: Triton compiles it, or part of it. The lines begin with the first decorator.
    """

    name: str
    file: str
    first_line: int
    last_line: int
    digest: str
    kernel: bool

    @property
    def place(self) -> str:
        """Where it is, in words: ``ln_kernels/blocks.py:product``."""
        name = self.name.partition(":")[2]
        return self.file if name == WHOLE else f"{self.file}:{name}"


@dataclass(frozen=True)
class Fingerprint:
    """All of a target's parts, by file and name. Equal digests: nothing of it was changed."""

    digest: str
    parts: tuple[Part, ...]


def fingerprint(target: Target, root: Path) -> Fingerprint:
    """Follow a target through everything that it uses of the repository at ``root``.

    Installed packages do not count, even inside of it; neither does this program, except for the
    adapters of the built-in targets.

    Raises: ValueError for a file that cannot be parsed.
    """
    from fuzz.targets import place_of

    follower = _Follower(root)
    follower.start(*place_of(target.spec.name))
    follower.follow_object(target.call)
    parts = follower.parts()
    lines = "\n".join(f"{part.file} {part.name} {part.digest}" for part in parts)
    return Fingerprint(_digest(lines), parts)


def is_under_test(file: Path, root: Path) -> bool:
    """Whether a file is part of a repository that is tested. Both paths are resolved.

    Not so are this program, and what is installed in an environment inside the repository.
    """
    if not file.is_relative_to(root):
        return False
    relative = file.relative_to(root)
    if relative == ADAPTERS:
        return True
    if not _INSTALLED.isdisjoint(relative.parts):
        return False
    apart = (*HARNESS, _STANDARD_LIBRARY)
    return not any(root in place.parents and file.is_relative_to(place) for place in apart)


@dataclass(frozen=True)
class _Module:
    """Where a module is: its file, and the folders of its own modules where it is a package."""

    file: Path | None
    folders: tuple[str, ...]


class _Follower:
    """Goes from definition to definition; each is read once."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._modules: dict[str, _Module | None] = {}
        self._sources: dict[Path, Source] = {}
        self._parts: dict[tuple[Path, str], Part] = {}
        self._waiting: list[tuple[Source, str]] = []
        self._asked: set[tuple[Path, str]] = set()
        self._unread: list[Source] = []
        # Keeps objects alive: an id is an object's own for so long.
        self._objects: dict[int, Any] = {}
        self._active: set[tuple[Path, str, Chain]] = set()

    def start(self, module: str, name: str) -> None:
        """Follow the definition that a target's name stands for."""
        self._reach(module, (name,))

    def parts(self) -> tuple[Part, ...]:
        """All that was found, once everything that it leads to is read."""
        while self._waiting or self._unread:
            # One after the other: chains of imports may be longer than Python's stack.
            if self._unread:
                self._load(self._unread.pop())
            else:
                self._define(*self._waiting.pop())
        return tuple(sorted(self._parts.values(), key=lambda part: (part.file, part.name)))

    # objects

    def follow_object(self, value: Any) -> None:
        """Follow functions, kernels and classes, and what holds them."""
        if isinstance(value, _PLAIN) or id(value) in self._objects:
            return
        self._objects[id(value)] = value
        for inner in self._held(value):
            self.follow_object(inner)

    def _held(self, value: Any) -> Iterator[Any]:
        if isinstance(value, (list, tuple, set, frozenset)):
            yield from value
        elif isinstance(value, dict):
            yield from value.values()
        elif isinstance(value, functools.partial):
            yield from (value.func, value.args, value.keywords)
        elif isinstance(value, types.MethodType):
            yield from (value.__func__, value.__self__)
        elif isinstance(value, type):
            self._find_class(value)
        elif isinstance(value, types.FunctionType):
            self._find_function(value)
            yield from _closed_over(value)
            yield getattr(value, "__wrapped__", None)
        else:
            own = _attributes(value)
            if self._find_class(type(value)):
                yield from own.values()
            else:
                yield from (own[name] for name in _WRAPPED if name in own)

    def _find_class(self, kind: type) -> bool:
        source = self._source_of(kind.__module__)
        if source is not None:
            self._want(source, kind.__qualname__.partition(".")[0])
        return source is not None

    def _find_function(self, function: types.FunctionType) -> None:
        code = function.__code__
        path = Path(code.co_filename).resolve()
        if not self._counts(path) or not path.is_file():
            return
        source = self._source_at(path, function.__module__)
        for name in source.names_at(code.co_firstlineno):
            self._want(source, name)

    # modules

    def _find_module(self, name: str) -> _Module | None:
        if name not in self._modules:
            self._modules[name] = self._locate(name)
        return self._modules[name]

    def _locate(self, name: str) -> _Module | None:
        """Without importing anything: a package that is not needed may take minutes, or fail."""
        loaded = sys.modules.get(name)
        if loaded is not None:
            file = getattr(loaded, "__file__", None)
            return _Module(
                Path(file).resolve() if file else None, tuple(getattr(loaded, "__path__", ()))
            )
        above = name.rpartition(".")[0]
        package = self._find_module(above) if above else None
        if above and (package is None or not self._may_hold(package)):
            return None
        try:
            if package is None:
                spec = importlib.util.find_spec(name)
            else:
                spec = PathFinder.find_spec(name, list(package.folders))
        except (ImportError, ValueError):
            # It is not there. Where that matters, the target shows it when it is run.
            return None
        if spec is None:
            return None
        file = Path(spec.origin).resolve() if spec.has_location and spec.origin else None
        return _Module(file, tuple(spec.submodule_search_locations or ()))

    def _source_of(self, module: str) -> Source | None:
        """The source of a module that is under test, or None."""
        found = self._find_module(module)
        if found is None or found.file is None or found.file.suffix != ".py":
            return None
        return self._source_at(found.file, module) if self._counts(found.file) else None

    def _source_at(self, path: Path, module: str) -> Source:
        if path not in self._sources:
            self._sources[path] = Source(path, module)
            self._unread.append(self._sources[path])
        return self._sources[path]

    def _counts(self, path: Path) -> bool:
        return is_under_test(path, self._root)

    def _may_hold(self, package: _Module) -> bool:
        """Whether modules of a package may be under test. One without a file has many folders."""
        return bool(package.folders) and (package.file is None or self._counts(package.file))

    def _load(self, source: Source) -> None:
        """What happens when a module is imported belongs to all that is in it."""
        if source.actions:
            self._want(source, ON_IMPORT)
        for imported in (*source.imports, Imported(source.module)):
            self._load_module(imported)

    def _load_module(self, imported: Imported) -> None:
        """Read a module and the packages that it is in, for what importing them does."""
        names = imported.module.split(".")
        for end in range(1, len(names) + 1):
            self._source_of(".".join(names[:end]))
        if imported.name is not None:
            self._source_of(f"{imported.module}.{imported.name}")

    # names

    def _reach(self, module: str, chain: Chain) -> set[str]:
        """Follow attributes of a module. Returns the full names of what is not under test."""
        source = self._source_of(module)
        deeper = f"{module}.{chain[0]}" if chain else ""
        if source is None:
            package = self._find_module(module)
            if deeper and package and self._may_hold(package) and self._find_module(deeper):
                return self._reach(deeper, chain[1:])
            return {".".join((module, *chain))}
        if chain and self._provides(source, chain[0]):
            return self._use(source, chain[0], chain[1:])
        if deeper and self._find_module(deeper):
            return self._reach(deeper, chain[1:])
        if not chain or chain[0] not in _OF_ALL_MODULES:
            # The module itself, handed on or asked for what nobody sees it get.
            self._take_whole(source)
        return set()

    def _provides(self, source: Source, name: str) -> bool:
        return name in source.bindings or bool(self._starred(source, name))

    def _starred(self, source: Source, name: str, seen: tuple[Path, ...] = ()) -> list[Source]:
        """The modules whose names a module takes over, where they provide this one."""
        found = (self._source_of(star) for star in source.stars)
        return [
            star
            for star in found
            if star is not None
            and star.path not in seen
            and (name in star.bindings or self._starred(star, name, (*seen, star.path)))
        ]

    def _use(self, source: Source, name: str, chain: Chain) -> set[str]:
        """Follow a name of a module, and what is asked of it, as :meth:`_reach` does."""
        key = (source.path, name, chain)
        if key in self._active:
            return set()
        self._active.add(key)
        self._want(source, name)
        found: set[str] = set()
        for star in self._starred(source, name):
            found |= self._use(star, name, chain)
        for binding in source.bindings.get(name, ()):
            imported = binding.imported
            if imported is None:
                continue
            if (imported.module, imported.name) == (source.module, name):
                # `from . import name` in a package itself: its module of that name.
                found |= self._reach(f"{source.module}.{name}", chain)
            else:
                found |= self._reach(imported.module, (*imported.chain, *chain))
        self._active.remove(key)
        return found

    def _take_whole(self, source: Source) -> None:
        if (source.path, WHOLE) in self._asked:
            return
        self._want(source, WHOLE)
        for name in source.bindings:
            self._use(source, name, ())

    def _take_everything(self, source: Source) -> None:
        """What a module may reach that looks things up while it runs: all that it has imported,
        and its neighbours in its package."""
        self._take_whole(source)
        modules = [imported.module for imported in source.imports]
        if source.package:
            modules += [f"{source.package}.{p.stem}" for p in source.path.parent.glob("*.py")]
        for found in map(self._source_of, modules):
            if found is not None:
                self._take_whole(found)

    # definitions

    def _want(self, source: Source, name: str) -> None:
        if (source.path, name) not in self._asked:
            self._asked.add((source.path, name))
            self._waiting.append((source, name))

    def _define(self, source: Source, name: str) -> None:
        """Make a part of a definition, and follow what it refers to."""
        statements: Sequence[ast.stmt]
        if name == WHOLE:
            statements = source.tree.body
        else:
            statements = source.actions if name == ON_IMPORT else source.definition(name)
        if not statements:
            # An import by itself: what it leads to has been followed.
            return
        references = source.references(statements)
        foreign = self._follow(source, references)
        file = source.path.relative_to(self._root)
        # A table may have been filled by others.
        value = _attributes(sys.modules.get(source.module)).get(name)
        self.follow_object(value)
        self._parts[source.path, name] = Part(
            f"{_dotted(file)}:{name}",
            file.as_posix(),
            first_line(statements[0]),
            last_line(statements[-1] if name == WHOLE else statements[0]),
            # An imported name is another one once it stands for something else.
            _digest("\n".join((normalised(statements), *sorted(foreign)))),
            name not in (WHOLE, ON_IMPORT) and (references.is_jitted or _is_jitted(value)),
        )

    def _follow(self, source: Source, references: References) -> set[str]:
        """Follow references. Returns what names stand for that are not under test."""
        found: set[str] = set()
        meant: set[str] = set()
        for name in references.names:
            if not self._provides(source, name):
                if name in REFLECTION:
                    self._take_everything(source)
                continue
            for chain in references.uses[name]:
                full = self._use(source, name, chain)
                found |= full
                meant |= {f"{'.'.join((name, *chain))} is {other}" for other in full}
        for name, imported in references.bound:
            for chain in references.uses[name]:
                found |= self._reach(imported.module, (*imported.chain, *chain))
        for imported in references.imports:
            self._load_module(imported)
        for module in references.lookups:
            self._reach(module, ())
        if any(_looks_up(name) for name in found):
            self._take_everything(source)
        return meant


def _looks_up(name: str) -> bool:
    return name.startswith(LOOKUPS) and not name.startswith(NO_LOOKUPS)


def _closed_over(function: types.FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:
            # Nothing was assigned yet.
            continue


def _attributes(value: Any) -> dict[str, Any]:
    """An object's own attributes, without asking the object, which may import or compute."""
    try:
        found: dict[str, Any] = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return found


def _is_jitted(value: Any) -> bool:
    """Whether a value is a kernel of Triton's, below whatever decorates it."""
    while value is not None:
        if any(kind.__name__ in _JITTED for kind in type(value).__mro__):
            return True
        value = _attributes(value).get("fn")
    return False


def _dotted(file: Path) -> str:
    """A file as a module: the same name in every copy of the repository."""
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
