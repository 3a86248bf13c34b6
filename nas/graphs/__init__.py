"""Networks as graphs: operators with shapes, how they are read, rewritten, counted and written."""
