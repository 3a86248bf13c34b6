"""Recipes of supernet training, one a file; see `nas.training.recipe`."""
