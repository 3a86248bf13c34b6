"""An exporter: ONNX under another ending."""

from nas.exporting.exporter import exporters

Onnx = exporters.get("onnx-quantised")


class AcmeFile(Onnx):
    """The ONNX file under a suffix of its own."""

    suffix = ".acme"
