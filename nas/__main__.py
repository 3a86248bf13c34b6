"""`python -m nas …` is `nas …`, and loads nothing from the folder in which it is started."""

import sys
from pathlib import Path


def _forget_working_folder() -> None:
    """Take the working folder, which Python puts first, off the path; a checkout that is run in place is looked at last."""
    if sys.flags.safe_path or not sys.path or Path(sys.path[0] or ".").resolve() != Path.cwd():
        return
    first = sys.path.pop(0)
    if Path(__file__).resolve().parents[1] == Path.cwd():
        sys.path.append(first or str(Path.cwd()))


if __name__ == "__main__":
    _forget_working_folder()
    from nas.cli import main

    main()
