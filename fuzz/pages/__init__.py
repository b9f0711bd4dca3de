"""The report page: one self-contained HTML file of what the history knows."""
