"""Checks, and the loop that runs them: `ok NAME`, or `not ok NAME` and why."""

import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

CHECKS: list["Check"] = []


class Failed(AssertionError):
    """What was expected and did not hold."""


def expect(condition: object, why: str) -> None:
    if not condition:
        raise Failed(why)


def expect_equal(got: object, wanted: object, what: str) -> None:
    expect(got == wanted, f"{what}: {got!r}, expected {wanted!r}")


@dataclass
class World:
    """What a check is given: the pods of one stage, and the gateway in front of them."""

    stage: str
    gateway: str
    pods: list = field(default_factory=list)

    @property
    def model(self) -> str:
        """The stage, its model's key and the name it is served under are one word."""
        return self.stage


@dataclass(frozen=True)
class Check:
    name: str
    stage: str
    run: Callable[[World], None]
    limit_s: int


def check(name: str, stage: str = "tiny", limit_s: int = 60):
    """Registers a function of the world. Checks run in the order in which they are declared."""

    def register(run: Callable[[World], None]):
        CHECKS.append(Check(name, stage, run, limit_s))
        return run

    return register


def _alarm(*_):
    raise TimeoutError("the check's own time limit")


def run(checks: list[Check], world: World) -> tuple[int, int]:
    """(passed, failed)."""
    signal.signal(signal.SIGALRM, _alarm)
    passed = failed = 0
    for one in checks:
        began = time.monotonic()
        signal.alarm(one.limit_s)
        try:
            one.run(world)
        except Exception as error:  # a client library may raise anything at all
            failed += 1
            print(f"not ok {one.name} {_why(error)}", flush=True)
            if not isinstance(error, Failed):
                traceback.print_exc(limit=-4, file=sys.stderr)
        else:
            passed += 1
            print(f"ok {one.name} ({time.monotonic() - began:.1f} s)", flush=True)
        finally:
            signal.alarm(0)
    return passed, failed


def _why(error: Exception) -> str:
    """One line, bounded: some clients put whole pages into their errors."""
    text = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, Failed):
        text = f"{type(error).__name__}: {text}"
    return text[:600]
