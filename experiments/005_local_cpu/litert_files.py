"""Convert a folder of .onnx files into .tflite files beside them; needs onnx2tf, and nothing of the project.

python experiments/005_local_cpu/litert_files.py FOLDER
"""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

MOST_S = 12.0
"""Processor seconds for one network: the converter's search for layouts does not end on some transformers."""


def stop(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError


def main() -> None:
    """Convert what is missing; say what cannot be."""
    import onnx2tf

    signal.signal(signal.SIGPROF, stop)
    for path in sorted(Path(sys.argv[1]).glob("*.onnx")):
        to = path.with_suffix(".tflite")
        if to.exists():
            continue
        with tempfile.TemporaryDirectory() as room:
            signal.setitimer(signal.ITIMER_PROF, MOST_S)
            try:
                onnx2tf.convert(input_onnx_file_path=str(path), output_folder_path=room, not_use_onnxsim=True, verbosity="error")
            except (Exception, SystemExit) as error:  # noqa: BLE001  a converter may raise anything; the network is left out, and said
                print(f"{path.stem}: cannot be converted ({type(error).__name__})", flush=True)
                continue
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            made = Path(room) / f"{path.stem}_float32.tflite"
            if made.is_file():
                to.write_bytes(made.read_bytes())
            print(f"{path.stem}: {'done' if made.is_file() else 'no file'}", flush=True)


if __name__ == "__main__":
    main()
