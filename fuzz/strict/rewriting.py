"""A kernel's source, rewritten so that Python runs it as the compiler reads it.

Each function here that takes a syntax node turns what Python would do by its own rules into a call
of the builder, which a kernel's globals know as ``interpreter_builder``: the methods of
:class:`LanguageBuilder`. Line numbers stay.
"""

# ruff: noqa: N802  (the names are those of the nodes that the methods visit)

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any, TypeVar

import triton
from triton.runtime import interpreter as stock

from fuzz.strict.faults import UnsupportedInInterpreter

_Node = TypeVar("_Node", bound=ast.AST)

REWRITTEN: dict[Callable[..., Any], Callable[..., Any]] = {}
"""Stands in for Triton's own cache of rewritten functions, which are others."""

_stock_rewrite = stock.FunctionRewriter.rewrite_ast
_RETURNS_TENSORS = triton.__version__.startswith("3.6.")
_STOCK_CHAINS = hasattr(stock.ASTTransformer, "visit_Compare")


class Rewriter(stock.ASTTransformer):  # type: ignore[misc]  # Triton is untyped
    """Triton's own transformation of a kernel, and those that it lacks."""

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        """``a and b``: ``Start("and") < Next(a) < Next(b)``, which Python evaluates lazily too.

        Unlike a lambda for each operand, this binds ``:=`` in the kernel's own scope.
        """
        name = "and" if isinstance(node.op, ast.And) else "or"
        chain = ast.Compare(
            left=_call("logical_start", ast.Constant(name)),
            ops=[ast.Lt() for _ in node.values],
            comparators=[_call("logical_operand", self.visit(value)) for value in node.values],
        )
        return _placed(_call("logical_result", chain), node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        """``not a``."""
        operand = self.visit(node.operand)
        if isinstance(node.op, ast.Not):
            return _placed(_call("logical_not", operand), node)
        node.operand = operand
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """``a < b < c``: refused, before the Triton that has a transformation of its own."""
        if len(node.ops) > 1 and not _STOCK_CHAINS:
            raise SyntaxError(
                f"line {node.lineno} of the function: {ast.unparse(node)}: "
                "simultaneous multiple comparison is not supported"
            )
        handle = super().visit_Compare if _STOCK_CHAINS else self.generic_visit
        rewritten: ast.AST = handle(node)
        return rewritten

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """``f(a)``: what ``f`` means to the compiler may be another function."""
        node = self.generic_visit(node)
        node.func = _placed(_call("meaning", node.func), node.func)
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        """``a = 1`` makes a tensor, as does each part of ``a, b = 1, 2``."""
        if len(node.targets) > 1:
            raise SyntaxError(f"line {node.lineno} of the function: more than one target")
        node.targets = [self.visit(target) for target in node.targets]
        node.value = _placed(_call("assigned", self.visit(node.value)), node.value)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """``a: tl.float32 = 1`` is ``a = 1``; ``a: tl.constexpr = 1`` stays a number."""
        if node.value is not None:
            node.value = self.visit(node.value)
            if not ast.unparse(node.annotation).endswith("constexpr"):
                node.value = _placed(_call("assigned", node.value), node.value)
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        """``a += 1`` as ``a = a + 1``."""
        if not isinstance(node.target, ast.Name):
            handled: ast.AST = self.generic_visit(node)
            return handled
        old = _placed(ast.Name(node.target.id, ast.Load()), node.target)
        value = _placed(ast.BinOp(old, node.op, node.value), node)
        return self.visit_Assign(_placed(ast.Assign([node.target], value), node))

    def visit_NamedExpr(self, node: ast.NamedExpr) -> ast.AST:
        """``(a := 1)``."""
        node.value = _placed(_call("assigned", self.visit(node.value)), node.value)
        return node

    def visit_Return(self, node: ast.Return) -> ast.AST:
        """``return 1``: Triton 3.6 makes a tensor of it, later ones leave it a number."""
        if node.value is not None:
            node.value = self.visit(node.value)
            if _RETURNS_TENSORS:
                node.value = _placed(_call("assigned", node.value), node.value)
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        """``assert a, "message"`` is ``tl.device_assert(a, "message")``."""
        message = ast.Constant("") if node.msg is None else node.msg
        call = _call("asserted", self.visit(node.test), self.visit(message))
        return _placed(ast.Expr(call), node)


def rewrite(rewriter: Any) -> Callable[..., Any]:
    """Also refuse to run what has no source: replaces ``FunctionRewriter.rewrite_ast``."""
    rewritten: Callable[..., Any] = _stock_rewrite(rewriter)
    if rewritten is rewriter.fn:
        name = rewritten.__name__
        raise UnsupportedInInterpreter(f"kernel {name} without a source file, as to the compiler")
    return rewritten


def first_def(rewriter: Any, lines: list[str]) -> int:
    """The number of the line with the function's name: replaces ``FunctionRewriter._find_def``.

    Stock takes the last line that begins with ``def``, which may be one of a docstring.
    """
    return next(n for n, line in enumerate(lines, 1) if line.lstrip().startswith("def "))


def _call(method: str, *args: ast.expr) -> ast.Call:
    builder = ast.Name("interpreter_builder", ast.Load())
    return ast.Call(ast.Attribute(builder, method, ast.Load()), list(args), [])


def _placed(node: _Node, source: ast.AST) -> _Node:
    return ast.fix_missing_locations(ast.copy_location(node, source))
