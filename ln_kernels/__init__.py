"""Layer-normalisation kernels in Triton: forward, inference, from any strides, without copies."""

from ln_kernels.bias import fused_bias_layer_norm
from ln_kernels.gated import LayerNorm, RMSNorm, layer_norm_forward, layernorm_fn, rmsnorm_fn
from ln_kernels.launch import LaunchConfig, default_launch, whole_row_launch
from ln_kernels.layer_norm import layer_norm, native_layer_norm
from ln_kernels.residual import layer_norm_residual
from ln_kernels.whole_row import triton_layer_norm

__all__ = [
    "LaunchConfig",
    "LayerNorm",
    "RMSNorm",
    "default_launch",
    "fused_bias_layer_norm",
    "layer_norm",
    "layer_norm_forward",
    "layer_norm_residual",
    "layernorm_fn",
    "native_layer_norm",
    "rmsnorm_fn",
    "triton_layer_norm",
    "whole_row_launch",
]
