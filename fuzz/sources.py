"""A module's source: which statement binds which name, and what each statement refers to."""

from __future__ import annotations

import ast
import importlib.util
import symtable
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

Chain = tuple[str, ...]
"""The attributes behind a name, ``("runtime", "jit")`` of ``triton.runtime.jit``."""

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEFINITIONS = (*_FUNCTIONS, ast.ClassDef)
_IMPORTS = (ast.Import, ast.ImportFrom)
_SCOPES = (*_DEFINITIONS, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True)
class Imported:
    """What an import binds a name to: a module, or ``name`` of it. Absolute, as it is written."""

    module: str
    name: str | None = None

    @property
    def chain(self) -> Chain:
        """What is asked of the module."""
        return () if self.name is None else (self.name,)


@dataclass(frozen=True)
class Binding:
    """One way in which a module's name gets its value.

    ``statement`` is the one at module level; None for an import that stands by itself.
    """

    statement: ast.stmt | None
    imported: Imported | None = None


@dataclass
class References:
    """What a statement refers to.

    ``names`` are the module's; ``uses`` holds the attributes that are asked of a name, ``()`` where
    it is used as it is. ``bound`` are the names that imports inside bind, ``imports`` the modules
    that those load; ``lookups`` are the modules that it has looked up by a constant name.
    """

    names: set[str] = field(default_factory=set)
    uses: dict[str, set[Chain]] = field(default_factory=lambda: defaultdict(set))
    bound: list[tuple[str, Imported]] = field(default_factory=list)
    imports: list[Imported] = field(default_factory=list)
    lookups: set[str] = field(default_factory=set)
    is_jitted: bool = False


class Source:
    """A Python file, without its comments, docstrings and formatting.

    ``module`` is its name, by which relative imports are read. Left out is what only a type checker
    or ``python -m`` runs.

    Raises: ValueError where it cannot be parsed.
    """

    def __init__(self, path: Path, module: str) -> None:
        self.path = path
        self.module = module
        text = importlib.util.decode_source(path.read_bytes())
        try:
            self.tree = _without_texts(ast.parse(text))
            self._tables = symtable.symtable(text, str(path), "exec").get_children()
        except SyntaxError as error:
            raise ValueError(f"{path}:{error.lineno}: {error.msg}") from error
        self.bindings: dict[str, list[Binding]] = defaultdict(list)
        # What it imports for all to see, and whose names it takes over.
        self.imports: list[Imported] = []
        self.stars: list[str] = []
        # What does something beyond binding names.
        self.actions: list[ast.stmt] = []
        for statement in _run_on_import(self.tree.body):
            self._read(statement)

    @property
    def package(self) -> str:
        """The package that the module is in, or is."""
        is_package = self.path.name == "__init__.py"
        return self.module if is_package else self.module.rpartition(".")[0]

    def definition(self, name: str) -> tuple[ast.stmt, ...]:
        """The statements that give a name its value, except for imports."""
        found = (binding.statement for binding in self.bindings.get(name, ()))
        return tuple(dict.fromkeys(statement for statement in found if statement is not None))

    def names_at(self, line: int) -> tuple[str, ...]:
        """The names that the statement at a line binds."""
        return tuple(
            name
            for name in self.bindings
            for statement in self.definition(name)
            if line in range(first_line(statement), last_line(statement) + 1)
        )

    def references(self, statements: Iterable[ast.stmt]) -> References:
        """What statements at module level refer to, and all that is inside of them."""
        found = References()
        for statement in statements:
            _Reader(self, found).visit(statement)
            lines = range(first_line(statement), last_line(statement) + 1)
            for table in self._tables:
                if table.get_lineno() in lines:
                    found.names |= _global_names(table)
        return found

    def imported(self, node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Imported]]:
        """The names that an import binds; ``*`` for those of a star."""
        for alias in node.names:
            if isinstance(node, ast.Import):
                # `import a.b` binds a, `import a.b as c` binds the module itself.
                whole, first = alias.name, alias.name.partition(".")[0]
                yield alias.asname or first, Imported(whole if alias.asname else first)
            else:
                yield alias.asname or alias.name, Imported(self._absolute(node), alias.name)

    def loaded(self, node: ast.Import | ast.ImportFrom) -> Iterator[Imported]:
        """What an import loads."""
        for alias in node.names:
            if isinstance(node, ast.Import):
                yield Imported(alias.name)
            else:
                yield Imported(self._absolute(node), alias.name)

    def _absolute(self, node: ast.ImportFrom) -> str:
        module = node.module or ""
        if node.level == 0:
            return module
        above = self.package.split(".")
        kept = above[: len(above) - node.level + 1]
        return ".".join((*kept, *([module] if module else ())))

    def _read(self, statement: ast.stmt) -> None:
        for node in _in_module_scope(statement):
            if isinstance(node, _IMPORTS):
                self.imports += self.loaded(node)
                outer = None if node is statement else statement
                for name, imported in self.imported(node):
                    if name == "*":
                        self.stars.append(imported.module)
                    else:
                        self.bindings[name].append(Binding(outer, imported))
            else:
                for name in _bound_by(node):
                    self.bindings[name].append(Binding(statement))
        if _acts(statement):
            self.actions.append(statement)


class _Reader(ast.NodeVisitor):
    """Collects references. Names inside functions are left to the symbol table, which knows which
    are the module's."""

    def __init__(self, source: Source, found: References) -> None:
        self._source = source
        self._found = found
        self._depth = 0

    def visit_Name(self, node: ast.Name) -> None:
        self._use(node, ())

    def visit_Attribute(self, node: ast.Attribute) -> None:
        chain: list[str] = []
        at: ast.expr = node
        while isinstance(at, ast.Attribute):
            chain.append(at.attr)
            at = at.value
        if isinstance(at, ast.Name):
            self._use(at, tuple(reversed(chain)))
        else:
            self.visit(at)

    def visit_Import(self, node: ast.Import) -> None:
        self._import(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self._import(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = _last_name(node.func)
        constant = node.args[0] if node.args else None
        if (
            name in ("import_module", "__import__")
            and isinstance(constant, ast.Constant)
            and isinstance(constant.value, str)
            and not constant.value.startswith(".")
        ):
            self._found.lookups.add(constant.value)
            for argument in (*node.args, *node.keywords):
                self.visit(argument)
            return
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.visit(node.args)
        self._inside(node.body)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for part in (*node.decorator_list, node.args, *([node.returns] if node.returns else ())):
            self.visit(part)
        self._found.is_jitted |= any(
            _last_name(d.func if isinstance(d, ast.Call) else d) == "jit"
            for d in node.decorator_list
        )
        self._inside(*node.body)

    def _inside(self, *nodes: ast.AST) -> None:
        self._depth += 1
        for node in nodes:
            self.visit(node)
        self._depth -= 1

    def _use(self, node: ast.Name, chain: Chain) -> None:
        self._found.uses[node.id].add(chain)
        if not self._depth:
            self._found.names.add(node.id)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        self._found.bound += self._source.imported(node)
        self._found.imports += self._source.loaded(node)


def first_line(statement: ast.stmt) -> int:
    """Where a statement begins, its decorators included."""
    decorators = statement.decorator_list if isinstance(statement, _DEFINITIONS) else []
    return min([statement.lineno, *(d.lineno for d in decorators)])


def last_line(statement: ast.stmt) -> int:
    """Where a statement ends."""
    return statement.end_lineno or statement.lineno


def normalised(statements: Iterable[ast.stmt]) -> str:
    """Statements as a text that formatting leaves as it is."""
    return "\n".join(ast.dump(statement) for statement in statements)


class _Texts(ast.NodeTransformer):
    """Drops strings that stand by themselves: docstrings, and those below constants."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return ast.copy_location(ast.Pass(), node)
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        # u"text" is "text".
        node.kind = None
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                kept = [statement for statement in block if not isinstance(statement, ast.Pass)]
                setattr(node, name, kept or block[:1])
        return node


def _without_texts(tree: ast.Module) -> ast.Module:
    found = _Texts().visit(tree)
    assert isinstance(found, ast.Module)
    return found


def _run_on_import(statements: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements, without those of a type checker and of a program."""
    for statement in statements:
        if isinstance(statement, ast.If) and _is_false_on_import(statement.test):
            yield from _run_on_import(statement.orelse)
        else:
            yield statement


def _is_false_on_import(test: ast.expr) -> bool:
    if isinstance(test, ast.Compare):
        return ast.unparse(test) in ("__name__ == '__main__'", "'__main__' == __name__")
    return _last_name(test) == "TYPE_CHECKING"


def _last_name(node: ast.expr) -> str | None:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def _in_module_scope(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it whose names are the module's."""
    yield node
    if not isinstance(node, _SCOPES):
        for child in ast.iter_child_nodes(node):
            yield from _in_module_scope(child)


def _bound_by(node: ast.AST) -> Iterator[str]:
    if isinstance(node, _DEFINITIONS):
        yield node.name
    elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, ast.MatchMapping) and node.rest:
        yield node.rest
    elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
        yield node.name


def _acts(statement: ast.stmt) -> bool:
    """Whether a statement at module level does more than to give names their values."""
    if isinstance(statement, (*_DEFINITIONS, *_IMPORTS, ast.Pass)):
        return False
    if isinstance(statement, ast.Assign):
        return not all(_is_name(target) for target in statement.targets)
    if isinstance(statement, (ast.AnnAssign, ast.AugAssign)):
        return not _is_name(statement.target)
    if isinstance(statement, (ast.If, ast.Try)):
        handlers = statement.handlers if isinstance(statement, ast.Try) else []
        ends = statement.finalbody if isinstance(statement, ast.Try) else []
        blocks = (statement.body, statement.orelse, ends, *(h.body for h in handlers))
        return any(_acts(inner) for block in blocks for inner in block)
    return True


def _is_name(target: ast.expr) -> bool:
    if isinstance(target, (ast.Tuple, ast.List)):
        return all(_is_name(item) for item in target.elts)
    return isinstance(target, ast.Name)


def _global_names(table: symtable.SymbolTable) -> set[str]:
    found = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_global()}
    return found.union(*(_global_names(child) for child in table.get_children()))
