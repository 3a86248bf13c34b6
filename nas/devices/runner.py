"""The contract of a runner: the commands that time a model file on a device, and how their output is read.

    nas measure MODEL.onnx --runner trtexec:fp16=1
    nas measure MODEL.tflite --runner adb:serial=R5CT,threads=4

A runner is a file in ``nas/devices/runners/``. `Runner.commands` builds command lines, no shell runs them; `Runner.parse` takes what the last one printed
and refuses all but the lines that it knows. A command of one's own with ``{onnx}`` in it needs no runner.
"""

from __future__ import annotations

import math
import re
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from nas.errors import MeasurementError, UsageError
from nas.registry import Registry


class Runner(ABC):
    """Builds the commands of a tool and reads its output.

    Attributes:
        options: What may be set behind the name, with defaults; one that is empty here and needed is asked for by `commands`.
        suffixes: Of the model files that the tool takes.
        repeats: How often the commands are run; one where the tool repeats by itself.
    """

    options: ClassVar[Mapping[str, str]] = {}
    suffixes: ClassVar[tuple[str, ...]] = (".onnx",)
    repeats: ClassVar[int] = 1

    @abstractmethod
    def commands(self, model: Path, options: Mapping[str, str]) -> Sequence[Sequence[str]]:
        """Return the command lines in order; the last prints the times.

        Raises:
            UsageError: An option that is needed is not given.
        """

    @abstractmethod
    def parse(self, text: str) -> list[float]:
        """Return the times in ms that the last command printed.

        Raises:
            MeasurementError: There are none, or more than the tool prints.
        """


runners: Registry[type[Runner]] = Registry("runners", "nas.devices.runners")
"""Runners by name."""


def named_runner(text: str) -> tuple[Runner, dict[str, str]] | None:
    """Return the runner and the options that ``NAME`` or ``NAME:key=value,key=value`` names; None for anything else, such as a command.

    Raises:
        UsageError: An option that the runner lacks.
    """
    if "{onnx}" in text:
        return None
    name, _, rest = text.partition(":")
    if name not in runners.names():
        return None
    runner = runners.get(name)()
    settings = [part.partition("=") for part in rest.split(",") if part]
    for key, equals, _ in settings:
        if not equals or key not in runner.options:
            raise UsageError(f"runner {name}: unknown option, got {key!r}. Expected one of: {', '.join(runner.options) or 'none'}.")
    return runner, {**runner.options, **{key: value for key, _, value in settings}}


def run(name: str, runner: Runner, options: Mapping[str, str], model: Path, timeout_s: float) -> list[float]:
    """Run a runner's commands and return its times in ms.

    Raises:
        UsageError: The tool does not take such a file.
        MeasurementError: A command cannot be run or fails, or its output is not what the tool prints.
    """
    if model.suffix not in runner.suffixes:
        raise UsageError(f"runner {name}: does not take such a file, got {model.name!r}. Expected {' or '.join(runner.suffixes)}.")
    samples: list[float] = []
    for _ in range(runner.repeats):
        printed = ""
        for words in runner.commands(model, options):
            done = called(f"runner {name}", words, timeout_s)
            printed = done.stdout + done.stderr
        samples += runner.parse(printed)
    return samples


def called(where: str, words: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run a command and return what it printed.

    Args:
        where: Who runs it, as messages begin.
        words: The command.
        timeout_s: Seconds after which it is stopped.

    Raises:
        MeasurementError: There is no such program, it took too long, or it ended with a fault.
    """
    try:
        done = subprocess.run(words, capture_output=True, encoding="utf-8", errors="replace", timeout=timeout_s, check=False)
    except FileNotFoundError:
        raise MeasurementError(f"{where}: no such program, got {words[0]!r}. Do this: install it and put it on the PATH.") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MeasurementError(f"{where}: {error}.") from None
    if done.returncode:
        last_line = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise MeasurementError(f"{where}: {words[0]!r} ended with {done.returncode}: {''.join(last_line)[:200]}")
    return done


def needed(name: str, options: Mapping[str, str], key: str, example: str) -> str:
    """Return an option without which the tool cannot run.

    Raises:
        UsageError: It is not given.
    """
    if not options[key]:
        raise UsageError(f"runner {name}: {key} is needed, got none. Do this: --runner {name}:{key}={example}.")
    return options[key]


def only(pattern: str, text: str, tool: str, factor: float = 1.0) -> list[float]:
    """Return the one number that a tool prints behind a pattern with a group, times a factor to ms.

    Raises:
        MeasurementError: It prints none, several, or one that is no positive number.
    """
    matches = re.findall(pattern, text, flags=re.MULTILINE)
    if len(matches) != 1:
        raise MeasurementError(
            f"{tool}: {'no time' if not matches else f'{len(matches)} times'} in its output. Expected one line like {pattern!r}."
        )
    ms = float(matches[0]) * factor
    if not 0 < ms < math.inf:
        raise MeasurementError(f"{tool}: no positive time in its output, got {matches[0]!r}.")
    return [ms]
