"""Search spaces: architectures, their genes and precisions, the operator families they choose from, published networks."""
