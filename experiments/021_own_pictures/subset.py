"""The pictures of the protocol: of each class of CIFAR-10 (JPEG re-encoded) the first N training files by name, and all test files, or as many as `--tests` says.

python experiments/021_own_pictures/subset.py --data ../shared/data/cifar10_jpeg.tar.xz --each 1000 --out /tmp/cifar-1000
"""

import argparse
import tarfile
from collections import defaultdict
from pathlib import Path


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--each", type=int, default=1000)
    parser.add_argument("--tests", type=int, help="of each class; default: all")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    found: dict[tuple[str, str], list[tuple[str, bytes]]] = defaultdict(list)
    with tarfile.open(given.data) as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is not None:
                split, label, name = member.name.split("/")[-3:]
                found[split, label].append((name, stream.read()))
    for (split, label), files in found.items():
        folder = given.out / split / label
        folder.mkdir(parents=True)
        for name, data in sorted(files)[: given.each if split == "train" else given.tests]:
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
