"""Processes: the kernel process, its supervision, and the shared memory between."""
