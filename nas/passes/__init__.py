"""Graph passes: what a runtime's compiler does before it runs a network."""
