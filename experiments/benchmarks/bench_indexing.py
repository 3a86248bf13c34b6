"""Memory and time of opening a folder of photographs and of decoding its pictures, by the number of photographs.

    python experiments/benchmarks/bench_indexing.py [--counts 500 2000] [--resolution 224] [--format JPEG|PNG] [--index-only]

Writes 20 photographs of 12 million pixels and about 5 MB into a temporary folder, makes data sets of hard links to them, and opens each in a
process of its own with an empty cache. Prints the largest memory that the process ever held (resident pages, those mapped from files
included, as the kernel counts them) and its seconds, as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FILES = 20
SHAPE = (3000, 4000)


def write_photographs(folder: Path, form: str) -> list[Path]:
    """Write pictures with the detail of a photograph: smooth areas, and noise that decides the size of the file."""
    import numpy as np
    from PIL import Image

    paths = []
    for i in range(FILES):
        rng = np.random.default_rng(i)
        coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).resize(SHAPE[::-1], Image.Resampling.BICUBIC)
        noise = rng.normal(0, 9 if form == "JPEG" else 1.2, (*SHAPE, 1)).astype(np.float32)
        pixels = (np.asarray(coarse, np.float32) + noise).clip(0, 255).astype(np.uint8)
        path = folder / f"{i}.{'jpg' if form == 'JPEG' else 'png'}"
        Image.fromarray(pixels).save(path, form, **({"quality": 90} if form == "JPEG" else {"compress_level": 1}))
        paths.append(path)
    return paths


def measured(folder: Path, cache: Path, resolution: int, index_only: bool) -> dict[str, float]:
    command = [sys.executable, __file__, "--open", str(folder), "--resolution", str(resolution), *["--index-only"] * index_only]
    done = subprocess.run(command, env={**os.environ, "NAS_CACHE_HOME": str(cache)}, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def open_folder(folder: Path, resolution: int, index_only: bool) -> dict[str, float]:
    from nas.training.dataset import SPLITS, load_dataset

    def peak_mb() -> float:  # getrusage would count what the parent held before this program was loaded
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6

    began_s = time.perf_counter()
    data = load_dataset(str(folder))
    indexed_s, indexed_mb = time.perf_counter() - began_s, peak_mb()
    found = {
        "pictures": sum(data.count(split) for split in SPLITS),
        "indexing_mb": round(indexed_mb, 1),
        "indexing_s": round(indexed_s, 1),
    }
    if not index_only:
        for split in SPLITS:
            data.pixels(split, (resolution, resolution))
        found |= {"decoding_mb": round(peak_mb(), 1), "decoding_s": round(time.perf_counter() - began_s - indexed_s, 1)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[500, 2000])
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--format", choices=["JPEG", "PNG"], default="JPEG")
    parser.add_argument("--index-only", action="store_true")
    parser.add_argument("--open", type=Path, help="used by the script itself")
    words = parser.parse_args()
    if words.open:
        print(json.dumps(open_folder(words.open, words.resolution, words.index_only)))
        return
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "photographs").mkdir()
        files = write_photographs(Path(home) / "photographs", words.format)
        print(json.dumps({"format": words.format, "mean_file_mb": round(sum(f.stat().st_size for f in files) / FILES / 1e6, 2)}))
        for count in words.counts:
            folder = Path(home) / str(count)
            for i in range(count):
                room = folder / f"class{i % FILES % 2}"
                room.mkdir(parents=True, exist_ok=True)
                os.link(files[i % FILES], room / f"{i:05}{files[0].suffix}")
            print(json.dumps(measured(folder, Path(home) / f"cache{count}", words.resolution, words.index_only)), flush=True)


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
