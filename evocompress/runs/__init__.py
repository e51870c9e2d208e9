"""A run folder read again: its front, comparisons, exports, figures, report and live display."""
