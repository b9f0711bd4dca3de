"""Cross-compilation: the kernels that cases launch, compiled for GPUs that need not be there."""
