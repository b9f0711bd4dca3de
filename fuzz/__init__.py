"""ln-fuzz: differential fuzzing and a merge gate for layer-normalisation GPU kernels."""
