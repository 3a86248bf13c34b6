"""Facts in a TensorFlow Lite file whose weights lie behind its tables, as ai-edge-quantizer writes them."""

import json

import numpy as np
import pytest

schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="the extra [tflite] is not installed")


def test_weights_behind_the_tables_keep_their_bytes() -> None:
    import flatbuffers

    from nas.exporting.exporters.tflite import _with_facts

    weights = np.arange(64, dtype=np.uint8)

    def packed(offset: int) -> bytes:
        model, buffer = schema.ModelT(), schema.BufferT()
        model.version, buffer.offset, buffer.size = 3, offset, len(weights)
        model.buffers = [schema.BufferT(), buffer]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    plain = packed(len(packed(2**20)))
    found = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(_with_facts(plain + weights.tobytes(), {"a": "b"}), 0))
    assert found.buffers[1].offset == 0
    assert found.buffers[1].data.tolist() == weights.tolist()
    assert json.loads(found.buffers[found.metadata[0].buffer].data.tobytes()) == {"a": "b"}
