"""Plots as SVG that reads on light and dark: text and axes take the page's own colour."""

import io
import re

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import LogLocator, NullFormatter  # noqa: E402
from summary import is_ours  # noqa: E402

# Written by matplotlib, replaced by `currentColor` afterwards.
INK = "#010203"
STYLE = ("<style>svg{color:#1f2328}@media(prefers-color-scheme:dark){svg{color:#e6edf3}}</style>")
OURS, THEIRS = "#d9480f", "#3b82c4"
plt.rcParams.update({
    "svg.fonttype": "none", "svg.hashsalt": "hearth", "font.size": 9,
    **{key: INK for key in ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor",
                            "xtick.color", "ytick.color", "grid.color")},
    "grid.alpha": 0.25, "axes.spines.top": False, "axes.spines.right": False,
    "savefig.transparent": True,
})


def dots(panels: dict[str, dict], label: str, log: bool, marks: dict[str, float]) -> str:
    """A panel for each cell: one row an arm, the median as a dot, the range as a line.

    `panels`: cell to arm to Spread. `marks`: where a panel has a dotted line.
    """
    names = [name for name in panels if panels[name]]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    most = max(len(panels[name]) for name in names)
    figure, axes = plt.subplots(rows, columns, squeeze=False, layout="constrained",
                                figsize=(3.6 * columns, (0.22 * most + 0.8) * rows))
    for axis in list(axes.flat)[len(names):]:
        axis.set_visible(False)
    for name, axis in zip(names, axes.flat):
        arms = list(panels[name])
        for row, arm in enumerate(arms):
            spread = panels[name][arm]
            color = colour(arm)
            axis.plot([spread.low, spread.high], [row, row], color=color, linewidth=2, alpha=0.5)
            axis.plot(spread.median, row, "o", color=color, markersize=5)
        axis.set_yticks(range(len(arms)), arms)
        axis.invert_yaxis()
        axis.set_title(name, fontsize=9)
        axis.set_xlabel(label, fontsize=8)
        axis.grid(axis="x")
        if log:
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter(NullFormatter())
        if name in marks:
            axis.axvline(marks[name], color=INK, linewidth=0.8, linestyle=":")
    return svg(figure)


def colour(arm: str) -> str:
    return OURS if is_ours(arm) else THEIRS


def svg(figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = out.getvalue()
    text = text[text.index("<svg"):].replace(INK, "currentColor")
    # The size comes from the view box, so that a narrow page can shrink it.
    head, rest = text.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head) + ' role="img"'
    return f"{head}>{STYLE}{rest}"
