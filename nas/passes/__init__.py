"""Graph passes: what a runtime's compiler does before it runs a network. One pass a file; each edits a `Draft` in place."""

from nas.graph import Graph
from nas.passes import fold_batch_norm, fuse_activations, remove_dead_code, remove_identities
from nas.passes.draft import Draft

__all__ = ["Draft", "normalise"]


def normalise(graph: Graph, *, compiled: bool = True) -> Graph:
    """Return the deploy form of a graph: what a runtime executes.

    MACs stay as they are (dead code apart), and so do parameters but those of folded batch norms: two vectors go, a bias comes.

    Args:
        graph: Traced, read from a file, or lowered.
        compiled: Whether the runtime removes dead code; eager runtimes follow the graph as written.

    Raises:
        GraphError: A pass broke the graph.
    """
    draft = Draft(graph)
    if compiled:
        remove_dead_code.rewrite(draft)
    remove_identities.rewrite(draft)
    fold_batch_norm.rewrite(draft)
    fuse_activations.rewrite(draft)
    return draft.build()
