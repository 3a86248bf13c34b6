"""Runners: one file each, what is called on a device and how its output is read."""
