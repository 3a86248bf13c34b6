"""A predictor: milliseconds by multiply-adds."""

import json

from nas.devices.predictor import Estimate, OperatorLatency, Predictor


class ByMacs(Predictor):
    """So many milliseconds a million multiply-adds, and as many an operator."""

    def __init__(self, ms=1.0):
        self.ms = ms

    def fit(self, samples, profiles):
        return self

    def estimate(self, graph, profile, precision, confidence=0.9):
        shares = tuple(
            OperatorLatency(op.name, op.op, self.ms * (1e-3 + graph.macs_of(op) / 1e6))
            for op in graph.operators
            if op.op not in graph.unknown
        )
        total = sum(share.latency_ms for share in shares)
        return Estimate(
            total, total * (1 - 0.2 * confidence), total * (1 + 0.2 * confidence), confidence, unsupported=graph.unknown, operators=shares
        )

    def save(self, path):
        path.write_text(json.dumps({"ms": self.ms}))

    @classmethod
    def load(cls, path):
        return cls(json.loads(path.read_text())["ms"])
