"""What every experiment shares: the fleet, the folder for results, the clock."""

import contextlib
import itertools
import json
import time
from dataclasses import dataclass
from pathlib import Path

import fleet
import proxies
from fleet import Fleet, Shape
from load import Load, as_row
from processes import get


class OutOfTime(Exception):
    """The next step would not fit before `--limit`."""


class Lab:
    def __init__(self, options):
        self.options, self.began = options, time.monotonic()
        self.out: Path = options.out
        self.out.mkdir(parents=True, exist_ok=True)
        self.fleet = Fleet(options, self.log)

    def log(self, text: str) -> None:
        line = f"[{time.monotonic() - self.began:6.1f}] {text}"
        print(line, flush=True)
        with (self.out / "summary.txt").open("a") as file:
            file.write(line + "\n")

    def folder(self, name: str) -> Path:
        """A new one in `out`, with a number if this load was run before."""
        paths = (self.out / (f"{name}-{number}" if number > 1 else name) for number in itertools.count(1))
        return next(path for path in paths if not path.exists())

    def needs(self, seconds: float, what: str) -> None:
        left = self.options.limit - (time.monotonic() - self.began)
        if left < seconds:
            raise OutOfTime(f"{what} takes {seconds:.0f} s, {left:.0f} s are left")

    def arms(self, wanted: list[proxies.Arm]) -> list[proxies.Arm]:
        """Those whose program was given and whose name was not left out."""
        named = self.options.arms
        return [arm for arm in wanted if proxies.available(arm, self.options)
                and (not named or arm.name in named)]

    @contextlib.contextmanager
    def surviving(self, what: str):
        """One arm that fails does not take the others' results along."""
        try:
            yield
        except OutOfTime:
            raise
        except Exception as error:  # whatever it is
            self.log(f"{what}: FAILED {type(error).__name__}: {error}")

    def keep(self, experiment: str, load: Load, **more) -> list[dict]:
        """Appends the records to `EXPERIMENT.jsonl`, so that a cut loses nothing."""
        rows = [as_row(record, **more) for record in load.records]
        with (self.out / f"{experiment}.jsonl").open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        return rows

    def figures(self, experiment: str, **values) -> None:
        """One line of results to `EXPERIMENT.figures.jsonl`, and to the summary."""
        with (self.out / f"{experiment}.figures.jsonl").open("a") as file:
            file.write(json.dumps(values) + "\n")
        self.log(f"{experiment}: " + ", ".join(f"{key}={value}" for key, value in values.items()))

    def dump(self, experiment: str, shapes: list[Shape]) -> None:
        for one in shapes:
            page = get(f"{one.url}/metrics", 10)
            if page:
                (self.out / f"{experiment}.{one.name}.metrics").write_text(page)


@dataclass
class Counted:
    """What the servers' own counters say of one load."""

    hit_rate: float
    busiest: float
    preemptions: int
    requests: list[int]


class Counters:
    """The servers' counters from now on."""

    def __init__(self, shapes: list[Shape]):
        self.shapes, self.before = shapes, [fleet.metrics(one) for one in shapes]

    def since(self) -> Counted:
        after = [fleet.metrics(one) for one in self.shapes]

        def each(name: str) -> list[float]:
            return [now.get(name, 0) - then.get(name, 0) for then, now in zip(self.before, after)]

        requests = [round(count) for count in each("request_success_total")]
        # Every prompt token is looked up once, so this is the busiest pod by tokens computed or found.
        tokens = each("prefix_cache_queries_total")
        return Counted(round(sum(each("prefix_cache_hits_total")) / max(sum(tokens), 1), 4),
                       round(max(requests) * len(requests) / max(sum(requests), 1), 3),
                       round(sum(each("num_preemptions_total"))), requests)


def quantile(values: list[float], share: float) -> float | None:
    """The nearest rank, in the values' unit; none of no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def ms(values: list[float | None], share: float) -> float | None:
    at = quantile([value for value in values if value is not None], share)
    return None if at is None else round(at * 1e3, 1)
