"""Latency predictors, one file each, and their fitted coefficients."""
