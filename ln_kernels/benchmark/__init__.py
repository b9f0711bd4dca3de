"""The parts of the benchmark, a leaf program: only ``python -m ln_kernels.bench`` imports them."""
