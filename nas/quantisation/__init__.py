"""Quantised networks: simulation, sensitivity, and the weights' grid."""
