"""Model files: exporters, and a trained network at a precision."""
