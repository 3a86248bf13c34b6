"""Opens a model file in ONNX Runtime: one place, so that a checked answer, an accuracy and a timing come of the same settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nas.errors import MeasurementError

if TYPE_CHECKING:
    import onnxruntime


def onnx_session(model: str | Path | bytes, *, threads: int = 0, provider: str = "CPUExecutionProvider") -> onnxruntime.InferenceSession:
    """Return a session of a file or of a serialised model.

    On an x86 processor without VNNI, ONNX Runtime multiplies 8-bit activations by signed weights in sums of 16 bits, which overflow: the
    answers of a w8a8 file are then wrong by far more than its rounding. `session.x64quantprecision` asks for the exact products there,
    which take longer; elsewhere it changes nothing (ONNX Runtime, `onnxruntime_session_options_config_keys.h`). Two of its passes then write the same tensor
    of some transformers, and it refuses the file; without the pass that turns other signed tensors into unsigned ones the products are as exact.

    Args:
        model: Path of the file, or its bytes.
        threads: Of each operator; 0 lets ONNX Runtime take all cores.
        provider: ONNX Runtime's name of who computes.

    Raises:
        MeasurementError: Another one would compute: by itself ONNX Runtime takes the processor where a GPU's libraries are missing, or fail.
    """
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # a refusal is raised, not printed
    options.add_session_config_entry("session.x64quantprecision", "1")
    source = model if isinstance(model, bytes) else str(model)
    try:
        session = onnxruntime.InferenceSession(source, options, providers=[provider], enable_fallback=0)
    except Fail:
        options.add_session_config_entry("optimization.disable_specified_optimizers", "QDQS8ToU8Transformer")
        session = onnxruntime.InferenceSession(source, options, providers=[provider], enable_fallback=0)
    if (taken := session.get_providers()[0]) != provider:
        raise MeasurementError(
            f"ONNX Runtime: cannot start {provider} and would compute by {taken}. "
            f"Do this: install the CUDA and cuDNN libraries that onnxruntime {onnxruntime.__version__} asks for."
        )
    return session
