"""Two plots as SVG, by hand: nothing needs to be installed to read results."""

from pathlib import Path

WIDTH, HEIGHT, MARGIN = 640, 400, 56


def scatter(file: Path, points: list[tuple[float, float]], across: str, up: str) -> None:
    """Both axes have one scale, so that the diagonal is a prediction that was right."""
    top = max(max(point) for point in points)
    at = _scale(top, top)
    x0, y0 = at((0, 0))
    x1, y1 = at((top, top))
    marks = [f'<line x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}" stroke="#999"/>']
    for point in points:
        x, y = at(point)
        marks.append(f'<circle cx="{x}" cy="{y}" r="2" fill="#1f6feb" fill-opacity="0.4"/>')
    _write(file, marks, top, top, across, up)


def line(file: Path, points: list[tuple[float, float]], across: str, up: str,
         events: list[tuple[float, str]]) -> None:
    right, top = max(x for x, _ in points), 100.0
    at = _scale(right, top)
    path = " ".join(f"{x},{y}" for x, y in map(at, points))
    marks = [f'<polyline points="{path}" fill="none" stroke="#1f6feb" stroke-width="2"/>']
    for number, (when, what) in enumerate(one for one in events if one[0] <= right):
        x, y = at((when, 0))
        marks.append(f'<line x1="{x}" y1="{y}" x2="{x}" y2="{MARGIN}" stroke="#c33" stroke-dasharray="3"/>')
        marks.append(f'<text x="{x + 3}" y="{HEIGHT - MARGIN - 12 - 14 * (number % 4)}" fill="#c33">{what}</text>')
    _write(file, marks, right, top, across, up)


def _scale(right: float, top: float):
    def at(point: tuple[float, float]) -> tuple[float, float]:
        x = MARGIN + point[0] / right * (WIDTH - 2 * MARGIN)
        y = HEIGHT - MARGIN - point[1] / top * (HEIGHT - 2 * MARGIN)
        return round(x, 1), round(y, 1)

    return at


def _write(file: Path, marks: list[str], right: float, top: float, across: str, up: str) -> None:
    at = _scale(right, top)
    axes = []
    for share in (0, .25, .5, .75, 1):
        (x, floor), (left, y) = at((right * share, 0)), at((0, top * share))
        axes.append(f'<text x="{x}" y="{floor + 18}" text-anchor="middle">{right * share:.0f}</text>')
        axes.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{top * share:.0f}</text>')
        axes.append(f'<line x1="{left}" y1="{y}" x2="{WIDTH - MARGIN}" y2="{y}" stroke="#ddd"/>')
    axes.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 10}" text-anchor="middle">{across}</text>')
    axes.append(f'<text x="14" y="{MARGIN - 14}">{up}</text>')
    file.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
                    'font-family="sans-serif" font-size="12">'
                    '<rect width="100%" height="100%" fill="white"/>'
                    + "".join(axes + marks) + "</svg>\n")
