"""Graph passes: what a runtime's compiler does before it runs a network. One pass a file; each edits a `Draft` in place."""

from nas.graphs.graph import Graph
from nas.graphs.passes import (
    fold_batch_norm,
    fold_pads,
    fold_scales,
    fuse_activations,
    recognise_activations,
    recognise_attention,
    recognise_norms,
    recognise_pools,
    recognise_splits,
    remove_dead_code,
    remove_identities,
)
from nas.graphs.passes.draft import Draft

__all__ = ["Draft", "normalise"]

RECOGNITION = (
    remove_identities.rewrite,
    recognise_splits.rewrite,
    recognise_activations.rewrite,
    recognise_norms.rewrite,
    recognise_pools.rewrite,
)
"""What an operator is, however it is written: valid for every runtime."""

FOLDING = (fold_pads.rewrite, fold_batch_norm.rewrite, fold_scales.rewrite, remove_identities.rewrite)
"""What a compiling runtime works out beforehand."""


def normalise(graph: Graph, *, compiled: bool = True) -> Graph:
    """Return the deploy form of a graph: what a runtime executes.

    MACs stay as they are but for dead code. Parameters stay but for vectors that fold away: of a batch norm two go and a bias comes, a
    layer scale goes. Published parameter counts are therefore taken before this.

    Args:
        graph: Traced, read from a file, or lowered.
        compiled: Whether the runtime folds, fuses and removes dead code; an eager one runs operators as they are written.

    Raises:
        GraphError: A pass broke the graph.
    """
    draft = Draft(graph)
    if compiled:
        remove_dead_code.rewrite(draft)
    for rewrite in (*RECOGNITION, *(FOLDING if compiled else ()), recognise_attention.rewrite):
        rewrite(draft)
    if compiled:
        fuse_activations.rewrite(draft)
    return draft.build()
