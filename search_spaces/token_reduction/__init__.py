"""Token reductions: one file a method."""
