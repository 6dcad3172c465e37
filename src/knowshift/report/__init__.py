"""Charts, and one self-contained HTML page."""
