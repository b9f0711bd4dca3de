"""The case space: what can be drawn, from the widths of rows to the layouts of memory."""
