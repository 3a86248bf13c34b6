"""What the product answered before its rooms were moved, and the code that asks it again.

``python tests/golden/answers.py`` writes the reference files anew from today's code; do that only where an answer is
meant to change, and say so in the commit. `test_answers.py` compares. Only the command line is used here: it stays
where it is.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ANSWERS = Path(__file__).parent / "answers"
NETWORKS = (
    "resnet18", "resnet50", "mobilenetv2_100", "mobilenetv3_large_100", "mobilenetv4_conv_small", "efficientnet_b0", "tf_efficientnet_lite0",
    "densenet121", "convnext_tiny", "regnetx_002", "repvit_m1_0", "fastvit_t8", "efficientformer_l1", "levit_128", "deit_tiny_patch16_224",
    "vit_small_patch16_224", "swin_tiny_patch4_window7_224", "maxvit_tiny_tf_224", "hrnet_w18", "ghostnet_100",
)  # fmt: skip
DEVICES = (
    "sa8295p", "sa8295p-tflite", "sa8775p", "samsung-galaxy-s24", "snapdragon-x-elite-crd", "hailo-8", "hailo-15l-streamed", "rtx-4090", "i9-10940x",
    "ncnn-raspberry-pi-5-broadcom-bcm2712-cortex-a76-4t", "ncnn-nvidia-jetson-orin-nano-gpu", "ncnn-qualcomm-snapdragon-x-elite-12t",
)  # fmt: skip
ZOO = (("sa8295p", "3ms"), ("i9-10940x", "20ms"), ("hailo-8", "300fps"))  # one device of each kind of latency model
WORDS = (
    "search", "--device", "sa8295p", "--budget", "5ms", "--space", "hybrid-s", "--data", "digits", "--resolution", "32", "--evals", "12", "--seed", "7",
    "--epochs", "3", "--finetune-epochs", "2",
)  # fmt: skip
"""A small seeded run of the main job, with few epochs."""


def ask(*words: object) -> Any:
    """Return what a command prints as JSON; a refusal is its line."""
    from nas.cli import main

    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([*map(str, words), "--format", "json"])
        except SystemExit as end:
            code = int(end.code or 0)
    return json.loads(out.getvalue()) if code == 0 else {"refused": err.getvalue().strip()}


def precisions() -> dict[str, list[str]]:
    """Return the precisions that each device has a latency model for."""
    return {name: [p for p, row in ask("devices", "show", name)["precisions"].items() if row.get("predictor")] for name in DEVICES}


def predictions(networks: tuple[str, ...] = NETWORKS) -> dict[str, Any]:
    """Return the estimates of every network on every device at every precision."""
    found: dict[str, Any] = {}
    for device, names in precisions().items():
        for precision in names:
            for network in networks:
                answer = ask("predict", network, "--device", device, "--precision", precision)
                answer.pop("profile_hash", None)  # that of a profile and its format, not an answer
                if "refused" not in answer:
                    operators = answer.pop("operators")
                    answer["operators"] = [len(operators), sum(op["latency_ms"] for op in operators)]
                found[f"{network} {device} {precision}"] = answer
    return found


def zoo() -> dict[str, Any]:
    """Return the fronts and choices of searches among published networks."""
    found = {}
    for device, budget in ZOO:
        with tempfile.TemporaryDirectory() as folder:
            answer = ask("search", "--device", device, "--budget", budget, "--space", "zoo", "--out", Path(folder) / "run")
        found[f"{device} {budget}"] = forget(answer)
    return found


def forget(answer: Any) -> Any:
    """Leave out what differs from run to run: seconds and folders."""
    if not isinstance(answer, dict):
        return answer
    return {key: value for key, value in answer.items() if key not in ("seconds", "ledger", "run_dir", "model", "sha256")}


def digits(folder: Path) -> dict[str, Any]:
    """Do the seeded run in `folder` on one thread: sums depend on their order; its weights and its model file lie there."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return forget(ask(*WORDS, "--out", folder))
    finally:
        torch.set_num_threads(before)


def digits_name() -> str:
    """Return the name of the seeded run's answer on this kind of processor: each rounds otherwise, and close scores change places."""
    import torch

    return f"digits-{torch.backends.cpu.get_cpu_capability().lower()}"


def write(name: str, data: Any) -> None:
    ANSWERS.mkdir(exist_ok=True)
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in data.items())
    (ANSWERS / f"{name}.json").write_text(f"{{\n{lines}\n}}\n")


def read(name: str) -> Any:
    return json.loads((ANSWERS / f"{name}.json").read_text())


def tensors(run: Path) -> dict[str, Any]:
    """Return what a run's files hold, as arrays: some values of every weight, and what the model answers to seeded pictures."""
    import numpy as np
    import onnxruntime
    from safetensors.numpy import load_file

    found = {
        name: np.resize(w.reshape(-1)[:: max(1, w.size // 32)], 32) for name, w in sorted(load_file(run / "finetuned.safetensors").items())
    }
    session = onnxruntime.InferenceSession(run / "model.onnx", providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    pictures = np.random.default_rng(0).standard_normal((4, *entry.shape[1:])).astype(np.float32)
    found["model.onnx"] = np.concatenate([session.run(None, {entry.name: picture[None]})[0] for picture in pictures])
    return found


if __name__ == "__main__":
    import numpy as np

    asked = sys.argv[1:] or ["predictions", "zoo", "digits"]
    if "predictions" in asked:
        write("predictions", predictions())
    if "zoo" in asked:
        write("zoo", zoo())
    if "digits" in asked:
        with tempfile.TemporaryDirectory() as place:
            write(digits_name(), digits(Path(place) / "run"))
            np.savez_compressed(ANSWERS / f"{digits_name()}.npz", **tensors(Path(place) / "run"))
