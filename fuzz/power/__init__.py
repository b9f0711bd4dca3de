"""The power of the tool: planted faults, and after how many cases each judge sees them."""
