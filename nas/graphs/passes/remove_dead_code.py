"""Remove operators whose results never reach an output. Compiled runtimes do so; eager ones run the graph as written."""

from __future__ import annotations

from nas.graphs.passes.draft import Draft


def rewrite(draft: Draft) -> None:
    """Edit `draft` in place."""
    for node in reversed(list(draft.nodes())):
        if not any(draft.users(value.name) or value.name in draft.outputs for value in node.outputs):
            draft.remove(node)
