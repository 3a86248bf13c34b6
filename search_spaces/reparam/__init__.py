"""Structural reparameterisation: blocks with a training form and an equal, smaller deploy form."""
