"""Importances of channels, one a file; see `nas.training.importance`."""
