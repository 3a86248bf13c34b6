"""``wide-softmax``: a softmax has 16 bits, so that an even attention to many tokens is not rounded to nothing."""

from __future__ import annotations

from typing import ClassVar

from nas.quantisation.method import Quantiser, quantisers


@quantisers.register("wide-softmax")
class WideSoftmax(Quantiser):
    """Gives softmax 16 bits on 0 … 1; what reads it has 8 again, on the range that calibration saw.

    At 8 bits a step of the grid of 0 … 1 is 1/255: of an even attention to more than 510 tokens nothing is left, and little of one to a quarter of
    them. Shares are small wherever there are many tokens, so the range that they take is a small part of 0 … 1.

    Source:
        Shares that a uniform grid loses are the subject of Yuan et al., "PTQ4ViT", arXiv 2111.12293, section 3.2, and Lin et al., "FQ-ViT",
        arXiv 2111.13824, section 3.3; differs in that the grid stays uniform, as runtimes have it, and the range is measured after 16 bits.
    """

    wide: ClassVar[frozenset[str]] = frozenset({"Softmax"})
