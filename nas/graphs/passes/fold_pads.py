"""Fold a padding with zeros into the window of the convolution that reads it (TensorFlow's "same" padding, written out)."""

from __future__ import annotations

from nas.graphs.passes.draft import Draft


def rewrite(draft: Draft) -> None:
    """Edit `draft` in place. Pools are left alone: they do not pad with zeros."""
    for node in draft.nodes("Pad"):
        pads, rank = node.attributes["pads"], len(node.shape)
        spatial = rank - 2
        begin, end = pads[:rank], pads[rank:]
        if "mode" in node.attributes or any(begin[:2]) or any(end[:2]) or min(pads) < 0:
            continue
        users = draft.users(node.out)
        if not users or node.out in draft.outputs or any(user.op != "Conv" or not user.weights for user in users):
            continue
        for user in users:
            old = user.attributes["pads"]
            user.attributes["pads"] = tuple(
                [old[i] + begin[2 + i] for i in range(spatial)] + [old[spatial + i] + end[2 + i] for i in range(spatial)]
            )
        draft.bypass(node)
