"""Two plots as SVG, drawn as those of `make compare` are."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "compare"))
from plots import INK, OURS, THEIRS, plt, svg  # noqa: E402

SIZE = (6.4, 4)


def scatter(file: Path, groups: dict[str, list[tuple[float, float]]], across: str, up: str) -> None:
    """Both axes have one scale, so that the diagonal is a prediction that was right."""
    figure, axis = plt.subplots(figsize=SIZE, layout="constrained")
    axis.axline((1, 1), slope=1, color=INK, linewidth=0.8, linestyle=":")
    for (label, points), color in zip(groups.items(), (OURS, THEIRS)):
        axis.plot(*zip(*points), "o", color=color, markersize=2.5, alpha=0.35, label=label)
    values = [value for points in groups.values() for point in points for value in point]
    ends = (max(1, min(values)), max(values))
    axis.set(xlabel=across, ylabel=up, xscale="log", yscale="log", xlim=ends, ylim=ends)
    axis.legend(frameon=False)
    file.write_text(svg(figure))


def line(file: Path, points: list[tuple[float, float]], across: str, up: str,
         events: list[tuple[float, str]]) -> None:
    figure, axis = plt.subplots(figsize=SIZE, layout="constrained")
    axis.plot(*zip(*points), color=OURS)
    axis.set(xlabel=across, ylabel=up, xlim=(0, max(x for x, _ in points)), ylim=(0, 100))
    for when, what in events:
        axis.axvline(when, color=INK, linewidth=0.8, linestyle="--")
        axis.text(when, 2, f" {what}", rotation=90, va="bottom", fontsize=7)
    file.write_text(svg(figure))
