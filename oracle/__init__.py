"""The oracle: layer normalisation in fp64 NumPy, with an error bound for every element."""
