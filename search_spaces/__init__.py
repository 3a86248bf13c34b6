"""Search spaces, one file each, and the operator families that they choose from."""
