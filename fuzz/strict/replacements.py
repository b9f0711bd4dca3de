"""What of Triton's interpreter is replaced so that kernels compute as compiled ones do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from triton.runtime import interpreter as stock
from triton.runtime.autotuner import Autotuner

from fuzz.strict import arithmetic, host, language, reductions, rewriting


def faithful() -> Iterator[tuple[Any, str, Any]]:
    """Owner, name and value of each attribute to set while a context is active."""
    yield stock.ReduceOps, "apply_impl", reductions.reduce
    yield stock.ScanOps, "apply_impl", reductions.scan
    yield stock.FunctionRewriter, "ast_transformer", rewriting.Rewriter()
    yield stock.FunctionRewriter, "rewrite_ast", rewriting.rewrite
    yield stock.FunctionRewriter, "_find_def", rewriting.first_def
    yield stock.InterpretedFunction, "rewritten_fn", rewriting.REWRITTEN
    yield type(stock.interpreter_semantic), "dot_scaled", arithmetic.dot_scaled
    yield stock, "_patch_lang_tensor", language.patch_tensor
    yield stock, "_patch_lang_core", language.patch_core
    yield stock, "_implicit_cvt", host.converted
    yield Autotuner, "run", host.run_first_config
    yield torch.cuda, "device", host.AnyDevice
    yield torch.cuda, "device_of", host.AnyDevice
