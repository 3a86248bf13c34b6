"""How a trained network is fine-tuned on other pictures."""

from __future__ import annotations

from dataclasses import dataclass

from nas.spaces.space import Resolution
from nas.training.supernet.batches import Augmentation
from nas.training.supernet.train import Recipe


@dataclass(frozen=True, slots=True)
class TransferRecipe(Recipe):
    """A recipe for weights that are good already.

    Attributes:
        frozen_norms: Whether norm statistics stay those that the training starts with; else batches give them, and the end takes them anew.
        first_side: Share of the deployment size at which training begins, see `side_at`.
        grown: Share of the steps after which the pictures have their deployment size.
    """

    window: float = 0.05
    frozen_norms: bool = False
    first_side: float = 0.75
    grown: float = 0.5

    def size_at(self, step: int, steps: int, size: Resolution) -> Resolution:
        """Return the size of picture of a step: it grows to the deployment size in multiples of 32 pixels.

        Source:
            Progressive resizing as in EfficientNetV2 (arXiv 2104.00298, section 4.2), without its stronger augmentation.
        """
        share = min(1.0, self.first_side + (1 - self.first_side) * step / max(self.grown * steps, 1))
        height, width = (min(side, max(32, 32 * round(side * share / 32))) for side in size)
        return (height, width) if step < self.grown * steps else size


def transfer_recipe(pictures: int, epochs: int) -> TransferRecipe:
    """Return the recipe for an amount of data and a length of training.

    Larger learning rates forget: MobileNetV2 ends 1 to 2 points lower by 5e-4 and 4 by 1e-3 than by 2.5e-4, 1.25e-4 being like that (three epochs of batches of 32,
    ``experiments/021_own_pictures/short_tunings.py``).

    Args:
        pictures: Of *train*.
        epochs: About how often each will be seen.
    """
    mixup = 0.2 if epochs >= 20 else 0.0  # mixing pays once pictures are seen often; before, it only slows
    few = pictures < 2000 or epochs < 10  # a short training needs steps rather than quiet gradients
    return TransferRecipe(
        epochs=epochs,
        batch=32 if few else 64,
        learning_rate=2e-4 if few else 3e-4,
        warmup=0.1,
        weight_decay=0.05,
        clip=5.0,
        smoothing=0.1,
        augmentation=Augmentation(shift=0.1, scale=0.1, mixup=mixup),
    )
