"""In which way the kernel of ``fatal.py`` is one that cannot be compiled."""

PASSES, ABORTS, EXITS, EATS_MEMORY, IS_ILL_TYPED = ALL = (1, 2, 3, 4, 5)
