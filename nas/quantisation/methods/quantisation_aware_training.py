"""``quantisation-aware-training``: the weights learn to give the float network's scores through the rounding."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.quantisation.learning import Learning
from nas.quantisation.method import Activations, Bounds, Quantiser, quantisers
from nas.quantisation.simulate import Simulated

EPOCHS = 10  # by hand
RATE = 1e-3
"""Adam's first step as a share of a parameter's root mean square (of at least 0.001); it falls to zero along a cosine. Set by hand."""


@quantisers.register("quantisation-aware-training")
class QuantisationAwareTraining(Quantiser):
    """Fine-tunes weights and biases through the simulation at w8a8, where gradients pass the rounding as if it were not there.

    It trains at the ranges that its recipe uses; its own are those of ``mse``. Nothing in it is random.
    All batches but the last are learnt from; where the last one, at ranges taken anew, is not closer for it, the weights stay as they were.

    Source:
        Jacob et al., arXiv 1712.05877, section 3, with the gradient of Bengio et al., arXiv 1308.3432 (straight-through); steps relative to
        a parameter as in arXiv 1804.04235, section 8. Differs in that the target is the float network's scores (mean square) on calibration
        pictures instead of labels, in that ranges stand while weights learn, and in that batch norm is fused before instead of folded along.
    """

    def prepare(self, module: nn.Module, batches: Sequence[Tensor], input_shape: Sequence[int]) -> nn.Module:
        """See `Quantiser.prepare`."""
        prepared = copy.deepcopy(module)
        with torch.inference_mode(False), torch.enable_grad():
            prepared.load_state_dict(_learned(copy.deepcopy(module), [x.clone() for x in batches], self.recipe or [self]))
        return prepared

    def bounds(self, activations: Activations, bits: int) -> Bounds | None:
        """See `Quantiser.bounds`."""
        return quantisers.get("mse")().bounds(activations, bits)


def _learned(student: nn.Module, batches: Sequence[Tensor], recipe: Sequence[Quantiser]) -> dict[str, Tensor]:
    """Return the state of `student`, trained or as it is, whose simulated scores are closer to those in float."""
    with torch.no_grad():
        targets = [student(x) for x in batches]
    parameters = list(student.requires_grad_().parameters())
    groups = [{"params": [p], "lr": RATE * max(1e-3, float(p.detach().square().mean().sqrt()))} for p in parameters]
    optimiser = torch.optim.Adam(groups)
    lessons = list(zip(batches, targets, strict=True))
    validation, lessons = lessons[-1], lessons[:-1] or lessons
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS * len(lessons))
    simulated = Simulated(student, "w8a8")
    networks = {x.shape: Learning(simulated, x) for x in {x.shape: x for x in batches}.values()}

    def loss(x: Tensor, target: Tensor) -> Tensor:
        return (networks[x.shape](x) - target).square().mean() / target.square().mean().clamp_min(1e-12)

    def state() -> tuple[float, dict[str, Tensor]]:
        simulated.calibrate(batches, recipe)
        return float(loss(*validation).detach()), {name: tensor.detach().clone() for name, tensor in student.state_dict().items()}

    before = state()
    for _ in range(EPOCHS):
        for x, target in lessons:
            optimiser.zero_grad()
            loss(x, target).backward()
            optimiser.step()
            schedule.step()
    return min(before, state(), key=lambda candidate: candidate[0])[1]
