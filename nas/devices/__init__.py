"""Devices: profiles, latency predictors, measuring, and a profile for a device of one's own."""
