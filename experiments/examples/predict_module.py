"""Price a PyTorch module on two devices, and say where its time goes.

python experiments/examples/predict_module.py
"""

from torch import nn

import nas


def network(classes: int = 10) -> nn.Module:
    """Return a small convolutional network for pictures (n, 3, h, w)."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, classes),
    )


def main() -> None:
    for device in ("sa8295p", "rtx-4090"):
        estimate = nas.predict(network(), device, input_shape=(1, 3, 224, 224))
        print(f"{device}: {estimate.latency_ms:.3f} ms {estimate.basis}, {estimate.lower_ms:.3f} to {estimate.upper_ms:.3f} ms")
        dearest = max(estimate.operators, key=lambda operator: operator.latency_ms)
        print(f"  {estimate.macs / 1e6:.1f} million multiply-adds; most time goes into {dearest.name} ({dearest.op})")


if __name__ == "__main__":
    main()
