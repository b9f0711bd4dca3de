"""The branches of a module, and the module without one of them.

A branch is a place where the module decides, or one of the things it decides between:

    arm      one way of an `if`, an `elif` or a conditional expression: the other is always taken
    guard    one operand of `and` / `or`, one link of a chained comparison, one filter of a
             comprehension
    entry    one element of a table: of a display, of `Table(...)`, `chain(...)`, or of a union
    default  what stands in where a lookup finds nothing
    cap      one argument of `min` / `max`
    step     a statement that changes what was decided: a call, `del`, `+=`, `x[i] = ...`
    yield    one `yield`
    handler  one `except`

Numbers are none: how often something is drawn is a weight, and without its entry it is not drawn.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

MARK = "__reached__"
"""The function that a marked module calls at the start of each block."""

# What has alternatives for arguments.
_TABLES = ("Table", "chain")
_PAIRS = "Table"
_NOT_DRAWN_FROM = ("__all__",)


@dataclass(frozen=True)
class Removal:
    """One branch, and the edit that takes it out of the tree it was found in.

    ``block`` is the line at which the block begins without which the removal changes nothing; None
    for what is run on import.
    """

    line: int
    kind: str
    where: str
    what: str
    block: int | None
    edit: Callable[[], None]


def removals(tree: ast.Module) -> list[Removal]:
    """The branches of a module in the order of its lines."""
    return sorted(_Search(tree).found, key=lambda removal: removal.line)


def mark(tree: ast.Module, module: str) -> None:
    """Have each block begin with a call of MARK, with the module's name and the block's line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef):
            continue  # Run on import: by all tests.
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list) and block:
                call = ast.parse(f"{MARK}({module!r}, {_first_line(block)})").body
                block[_docstring(block) : _docstring(block)] = call


def _docstring(block: list[ast.stmt]) -> int:
    """1 where the block begins with a text."""
    first = block[0]
    text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return int(text and len(block) > 1)


def _first_line(block: list[ast.stmt]) -> int:
    return block[_docstring(block)].lineno


class _Search:
    """Walks a tree, and keeps where it is: the names around it and the block it is in."""

    def __init__(self, tree: ast.Module) -> None:
        self.found: list[Removal] = []
        self._names: list[str] = []
        self._block: int | None = None
        self._calls: list[ast.Call] = []
        self._statements(tree.body)

    def _add(
        self, node: ast.AST, kind: str, what: str, edit: Callable[[], None], block: int | None = -1
    ) -> None:
        inside = self._block if block == -1 else block
        line = getattr(node, "lineno", 0)
        self.found.append(Removal(line, kind, ".".join(self._names), what, inside, edit))

    def _statements(self, statements: list[ast.stmt]) -> None:
        for index, statement in enumerate(statements):
            self._statement(statements, index, statement)

    def _inner(self, block: list[ast.stmt]) -> None:
        before = self._block
        # A class's body is run when it is made, as the module's is.
        self._block = _first_line(block)
        self._statements(block)
        self._block = before

    # --- statements ------------------------------------------------------------------------------

    def _statement(self, siblings: list[ast.stmt], index: int, node: ast.stmt) -> None:
        def dropped() -> None:
            siblings[index] = ast.copy_location(ast.Pass(), node)

        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            self._names.append(node.name)
            if isinstance(node, ast.ClassDef):
                self._statements(node.body)
            else:
                self._inner(node.body)
            self._names.pop()
            return
        if isinstance(node, ast.If):
            self._if(node)
        elif isinstance(node, ast.Try):
            for handler in node.handlers:
                self._add(handler, "handler", _said(handler), lambda: _untried(siblings, index))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Yield | ast.YieldFrom):
            self._add(node, "yield", _said(node), dropped)
        elif _is_step(node):
            self._add(node, "step", _said(node), dropped)
        name = _assigned(node)
        if name not in _NOT_DRAWN_FROM:
            table = [name] if name and not self._names else []
            self._names += table
            self._expressions(node)
            del self._names[len(self._names) - len(table) :]
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list) and block:
                self._inner(block)
        for handler in getattr(node, "handlers", ()):
            self._inner(handler.body)

    def _if(self, node: ast.If) -> None:
        def always(taken: bool) -> Callable[[], None]:
            return lambda: setattr(node, "test", ast.copy_location(ast.Constant(taken), node))

        said = _said(node.test)
        self._add(node, "arm", f"if {said}", always(False), _first_line(node.body))
        other = _first_line(node.orelse) if node.orelse else self._block
        self._add(node, "arm", f"else of {said}", always(True), other)

    # --- expressions -----------------------------------------------------------------------------

    def _expressions(self, node: ast.AST, *, pair: bool = False) -> None:
        """The branches in the expressions of a node; ``pair``: a weight and its value."""
        call = [node] if isinstance(node, ast.Call) and _called(node) not in _TABLES else []
        self._calls += call
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list"):
                continue
            for place, child in _children(node, field, value):
                # Statements have their own turn; a tuple of types has no alternatives.
                types = isinstance(node, ast.Subscript) and isinstance(child, ast.Tuple)
                if not isinstance(child, ast.expr | ast.comprehension | ast.keyword) or types:
                    continue
                paired = isinstance(child, ast.Tuple) and (pair or _called(node) == _PAIRS)
                if not paired:
                    whole = isinstance(node, ast.Return | ast.Assign) and isinstance(
                        child, ast.Tuple
                    )
                    self._expression(place, child, result=whole and _is_result(node))
                self._expressions(child, pair=paired and not pair)
        del self._calls[len(self._calls) - len(call) :]

    def _expression(self, place: _Place, node: ast.AST, *, result: bool) -> None:
        if isinstance(node, ast.IfExp):
            said = _said(node.test)
            self._add(node, "arm", f"{_said(node.body)} if {said}", place.set_to(node.orelse))
            self._add(node, "arm", f"{_said(node.orelse)} if not {said}", place.set_to(node.body))
        elif isinstance(node, ast.BoolOp):
            for operand in node.values:
                self._add(operand, "guard", _said(operand), place.set_to(_without(node, operand)))
        elif isinstance(node, ast.Compare) and len(node.ops) > 1:
            self._links(place, node)
        elif isinstance(node, ast.comprehension):
            for condition in node.ifs:
                self._add(
                    condition, "guard", f"if {_said(condition)}", _taken_from(node.ifs, condition)
                )
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                what = f"{_said(key)}: " if key is not None else "**"
                what += _said(value)
                self._add(value, "entry", what, _entry_taken(node, value))
        elif isinstance(node, ast.Tuple | ast.List | ast.Set) and not result:
            if isinstance(getattr(node, "ctx", None), ast.Store):
                return
            call = f" of {_said(self._calls[-1])}" if self._calls else ""
            for element in node.elts:
                what = _said(element) + call
                self._add(element, "entry", what, _element_taken(place, node, element))
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            self._add(node.left, "entry", _said(node.left), place.set_to(node.right))
            self._add(node.right, "entry", _said(node.right), place.set_to(node.left))
        elif isinstance(node, ast.Call):
            self._call(place, node)

    def _links(self, place: _Place, node: ast.Compare) -> None:
        values = [node.left, *node.comparators]
        for index, op in enumerate(node.ops):
            link = ast.Compare(values[index], [op], [values[index + 1]])
            left = [
                ast.Compare(values[i], [other], [values[i + 1]])
                for i, other in enumerate(node.ops)
                if i != index
            ]
            rest = left[0] if len(left) == 1 else ast.BoolOp(ast.And(), list(left))
            self._add(node, "guard", ast.unparse(link), place.set_to(rest))

    def _call(self, place: _Place, node: ast.Call) -> None:
        name = _called(node)
        arguments = node.args
        if name in ("min", "max") and len(arguments) > 1:
            for argument in arguments:
                left = [a for a in arguments if a is not argument]
                alone = left[0] if len(left) == 1 and not node.keywords else None
                edit = place.set_to(alone) if alone else _taken_from(arguments, argument)
                self._add(argument, "cap", f"{_said(argument)} of {_said(node)}", edit)
        elif name in _TABLES:
            for argument in arguments:
                self._add(argument, "entry", _said(argument), _taken_from(arguments, argument))
        elif name in ("get", "next") and len(arguments) == 2:
            what = f"{_said(arguments[1])} of {_said(node)}"
            self._add(arguments[1], "default", what, _taken_from(arguments, arguments[1]))
        for keyword in node.keywords:
            if keyword.arg == "default":
                what = f"{_said(keyword)} of {_said(node)}"
                self._add(keyword, "default", what, _taken_from(node.keywords, keyword))


@dataclass(frozen=True)
class _Place:
    """Where a node hangs: a field of its parent, or an item of such a list."""

    parent: ast.AST
    field: str
    index: int | None

    def set_to(self, node: ast.AST) -> Callable[[], None]:
        def edit() -> None:
            if self.index is None:
                setattr(self.parent, self.field, node)
            else:
                getattr(self.parent, self.field)[self.index] = node

        return edit


def _children(parent: ast.AST, field: str, value: Any) -> Iterator[tuple[_Place, ast.AST]]:
    if isinstance(value, ast.AST):
        yield _Place(parent, field, None), value
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, ast.AST):
                yield _Place(parent, field, index), item


def _taken_from(items: list[Any], item: Any) -> Callable[[], None]:
    return lambda: items.remove(item)


def _element_taken(
    place: _Place, node: ast.Tuple | ast.List | ast.Set, element: ast.expr
) -> Callable[[], None]:
    def edit() -> None:
        node.elts.remove(element)
        if isinstance(node, ast.Set) and not node.elts:
            place.set_to(ast.Call(ast.Name("set", ast.Load()), [], []))()

    return edit


def _entry_taken(node: ast.Dict, value: ast.expr) -> Callable[[], None]:
    def edit() -> None:
        index = node.values.index(value)
        del node.keys[index], node.values[index]

    return edit


def _without(node: ast.BoolOp, operand: ast.expr) -> ast.expr:
    left = [value for value in node.values if value is not operand]
    return left[0] if len(left) == 1 else ast.BoolOp(node.op, left)


def _untried(siblings: list[ast.stmt], index: int) -> None:
    node = siblings[index]
    assert isinstance(node, ast.Try)
    siblings[index : index + 1] = node.body


def _is_step(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Subscript) for target in node.targets)
    call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    return call or isinstance(node, ast.AugAssign | ast.Delete)


def _is_result(node: ast.AST) -> bool:
    """Whether a tuple here is several results at once, and no table."""
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Tuple) for target in node.targets)
    return True


def _assigned(node: ast.stmt) -> str:
    """The name of what is assigned."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return next((target.id for target in targets if isinstance(target, ast.Name)), "")


def _called(node: ast.AST) -> str:
    """The name of what is called, without what it belongs to."""
    function = node.func if isinstance(node, ast.Call) else None
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _said(node: ast.AST) -> str:
    """The node in one line."""
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 90 else f"{text[:87]}..."
