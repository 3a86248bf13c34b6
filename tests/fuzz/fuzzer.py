"""Malformed inputs: one kind of input a file in ``kinds/``, a mutator for all, and a judge that knows four faults.

Half of the mutants of JSON, TOML, arrays and archives changes what they hold (``values.py``): bytes changed at random rarely get past a checksum.

A kind is a module with

- ``ENDING``: of its files (``.onnx``);
- ``seeds() -> list[bytes]``: valid inputs, small and different from each other, that mutation starts from;
- ``read(path) -> object``: what a command does with such a file, down to its numbers;
- optionally ``structures() -> SearchStrategy[bytes]``: hypothesis builds inputs that are well formed on the outside;
- optionally ``absurd(result) -> str``: what is absurd in what `read` accepted, empty where nothing is;
- optionally ``WORDS``: byte strings that matter in this format, which mutation inserts.

`read` may raise `nas.errors.NasError` with one line. Everything else is a fault: another exception, more than `SECONDS` of processor time, more than
`MEMORY` beyond what the interpreter and its libraries hold, an absurd acceptance.

    python -m tests.fuzz.fuzzer --kind onnx --count 10000 --seed 1      a long run; what fails is kept in corpus/KIND/
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType, ModuleType

from tests.fuzz.values import restructured

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
SECONDS = 10
"""Of processor time: a machine that others use is no fault."""

PATIENCE = 30
"""Times `SECONDS` on the clock after which an input that only waits is a fault, too."""

MEMORY = 2 * 1024**3
FAULTS = ("internal error", "slow", "memory", "absurd", "crash")
_INTERESTING = (0, 1, 2, 7, 8, 127, 128, 255, 256, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)


class _TooSlow(BaseException):
    """Raised by the alarm; no reader catches it."""


def kinds() -> list[str]:
    """Return the kinds of input, sorted."""
    return sorted(path.stem for path in (HERE / "kinds").glob("*.py") if not path.stem.startswith("_"))


def load(kind: str) -> ModuleType:
    """Return a kind's module."""
    spec = importlib.util.spec_from_file_location(f"fuzz_{kind}", HERE / "kinds" / f"{kind}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def mutate(rng: random.Random, data: bytes, words: Sequence[bytes] = (), others: Sequence[bytes] = ()) -> bytes:
    """Return `data` after one to six random edits: of bits, bytes, numbers, runs, words of the format, and pieces of other inputs."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        at = rng.randrange(len(made) + 1)
        size = min(len(made) - at, rng.choice((1, 1, 2, 4, 8, 16, 64, 256)))
        match rng.randrange(11):
            case 0 if made:
                made[at % len(made)] ^= 1 << rng.randrange(8)
            case 1 if made:
                made[at % len(made)] = rng.randrange(256)
            case 2:
                del made[at : at + size]
            case 3:
                made[at:at] = made[at : at + size] * rng.choice((1, 1, 2, 8, 64))
            case 4:
                del made[at:]
            case 5:
                made[at:at] = rng.randbytes(size)
            case 6 if words:
                word = rng.choice(words)
                made[at : at + (len(word) if rng.random() < 0.5 else 0)] = word
            case 7:
                number = rng.choice(_INTERESTING)
                width = rng.choice((1, 2, 4, 8))
                made[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, "little")
            case 8:
                made[at : at + rng.choice((0, 1, 2, 5, 10))] = _varint(rng.choice(_INTERESTING))
            case 9:
                made[at:at] = str(rng.choice((*_INTERESTING, -1, -(2**31), 1e308, "nan", "-inf", "1e-320"))).encode()
            case 10 if others:
                other = rng.choice(others)
                start = rng.randrange(len(other) + 1)
                made[at : at + size] = other[start : start + rng.choice((4, 16, 64, 256))]
    return bytes(made)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def judge(module: ModuleType, data: bytes, folder: Path) -> tuple[str, str]:
    """Return (what came of an input, details): ``accepted``, ``refused``, or one of `FAULTS`."""
    from nas.errors import NasError

    path = folder / f"case{module.ENDING}"
    path.write_bytes(data)
    before = time.process_time()
    for alarm in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(alarm, _alarm)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(PATIENCE * SECONDS)
    try:
        result = module.read(path)
    except NasError as error:
        text = str(error)
        if "\n" in text or any(ord(c) < 32 or ord(c) == 127 for c in text):
            return "internal error", f"not one plain line: {text!r}"
        return "refused", text
    except _TooSlow:
        return "slow", f"over {SECONDS} s"
    except MemoryError:
        return "memory", f"over {MEMORY / 1e9:.1f} GB"
    except Exception:  # noqa: BLE001 - whatever a reader lets through is what is looked for
        return "internal error", traceback.format_exc(limit=-4)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
    if (seconds := time.process_time() - before) > SECONDS:
        return "slow", f"{seconds:.1f} s"
    why = module.absurd(result) if hasattr(module, "absurd") else ""
    return ("absurd", why) if why else ("accepted", "")


def _alarm(_signal: int, _frame: FrameType | None) -> None:
    raise _TooSlow


def inputs(module: ModuleType, count: int, seed: int) -> Iterator[bytes]:
    """Yield `count` inputs: mutants of the seeds by bytes and by values, and a quarter of a kind's structures (each mutated half of the time)."""
    rng = random.Random(seed)
    seeds, words = module.seeds(), tuple(getattr(module, "WORDS", ()))
    built = iter(_structures(module, count // 4, seed)) if hasattr(module, "structures") else iter(())
    for i in range(count):
        data = next(built, None) if i % 4 == 3 else None
        if data is None:
            seed_data = rng.choice(seeds)
            by_value = restructured(rng, seed_data, module.ENDING) if i % 2 else None
            yield mutate(rng, seed_data, words, seeds) if by_value is None else by_value
        else:
            yield mutate(rng, data, words, seeds) if rng.random() < 0.5 else data


def _structures(module: ModuleType, count: int, seed: int) -> list[bytes]:
    import hypothesis

    made: list[bytes] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=max(count, 1),
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(module.structures())
    def collect(data: bytes) -> None:
        made.append(data)

    collect()
    return made[:count]


def run(kind: str, count: int, seed: int, *, corpus: bool = True) -> Counter[str]:
    """Judge a kind's corpus and `count` new inputs in forked children, and keep what fails in ``corpus/KIND/``.

    Returns:
        How many inputs came to what.
    """
    module = load(kind)
    outcome: Counter[str] = Counter()
    held = sorted((CORPUS / kind).glob(f"*{module.ENDING}")) if corpus else []
    todo = [*((path.read_bytes()) for path in held), *inputs(module, count, seed)]
    for seed_data in module.seeds():  # what the libraries hold is taken before memory is bounded
        _warm(module, seed_data)
    while todo:
        done = _child(module, todo)
        for i, (what, why) in enumerate(done):
            outcome[what] += 1
            if what in FAULTS:
                _keep(kind, module.ENDING, todo[i], what, why)
        todo = todo[len(done) :]
    return outcome


def _warm(module: ModuleType, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        what, why = judge(module, data, Path(folder))
    if what != "accepted":
        raise AssertionError(f"a seed of {module.__name__} is not accepted: {what}: {why}")


def _child(module: ModuleType, todo: Sequence[bytes]) -> list[tuple[str, str]]:
    """Judge inputs in a forked child until all are done or one takes the child down; that one is a crash."""
    read, write = os.pipe()
    sys.stdout.flush()
    if not (child := os.fork()):
        os.close(read)
        code = 1
        try:
            held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
            with tempfile.TemporaryDirectory() as folder, os.fdopen(write, "w") as pipe, open(os.devnull, "w") as null:
                os.dup2(null.fileno(), 2)
                for data in todo:
                    print(json.dumps(judge(module, data, Path(folder))), file=pipe, flush=True)
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as pipe:
        done = [(str(what), str(why)) for what, why in map(json.loads, pipe)]
    _, status = os.waitpid(child, 0)
    if len(done) < len(todo):
        done.append(("crash", f"the process ended with status {status}"))
    return done


def _keep(kind: str, ending: str, data: bytes, what: str, why: str) -> None:
    folder = CORPUS / kind
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(data).hexdigest()[:12]}{ending}"
    path.write_bytes(data)
    print(f"{kind}: {what}: {path.name}: {why.strip().splitlines()[-1] if why.strip() else ''}", file=sys.stderr)
    if os.environ.get("FUZZ_VERBOSE"):
        print(why, file=sys.stderr)


def main() -> int:
    """Run the kinds that the command line names; the exit status is 1 where an input failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", action="append", choices=kinds(), help="default: all")
    parser.add_argument("--count", type=int, default=10_000, help="inputs a kind")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    failed = 0
    for kind in options.kind or kinds():
        outcome = run(kind, options.count, options.seed)
        failed += sum(outcome[fault] for fault in FAULTS)
        print(json.dumps({"kind": kind, "seed": options.seed, **dict(outcome.most_common())}), flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
