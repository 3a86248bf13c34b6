"""Hardware profiles, one file a device, and the operator lists of known networks."""
