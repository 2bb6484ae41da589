"""What the report is drawn with: escaped markup, numbers for people, the SVG charts and the style sheet.

What belongs here: functions from plain values to markup, and how it looks. What does not: knowledge of the
run document, sentences about a migration and the page's sections, which are `report.py`'s.

Everything is pure and deterministic. Markup is escaped by construction: `el` escapes every `str` that is
not already `Markup`, so forgetting a call shows `&lt;` on the page instead of running a table's name.
"""

from __future__ import annotations

import html
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

__all__ = [
    "DASH",
    "STYLE",
    "Bar",
    "Markup",
    "Sample",
    "Window",
    "average",
    "bar_chart",
    "compact",
    "count",
    "duration",
    "el",
    "icon",
    "join",
    "plural",
    "rate_chart",
    "size",
    "windows",
]

# --- markup ---------------------------------------------------------------------------------------------

DASH: Final = "\N{EN DASH}"  # in the place of a value: not known
_EMPTY: Final = frozenset({"circle", "line", "meta", "path", "rect"})
# Controls, lone surrogates and non-characters cannot stand in a UTF-8 page; bidirectional overrides can, and
# make one name look like another. All are shown by number. Joiners (ZWJ, ZWNJ) belong to real words and stay.
_UNPRINTABLE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef]"
    "|[" + "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF)) + "]"
)


class Markup(str):
    """Text that is HTML already. Only `el`, `join` and literals of this package make it."""

    __slots__ = ()


def _escape(text: str) -> str:
    return html.escape(_UNPRINTABLE.sub(lambda match: f"[U+{ord(match[0]):04X}]", text))


def _content(child: str | None) -> str:
    if child is None:
        return ""
    return child if isinstance(child, Markup) else _escape(child)


def join(*children: str | None) -> Markup:
    """Put children one after the other; plain strings are escaped, None is left out."""
    return Markup("".join(map(_content, children)))


def _attribute(name: str, value: str | float) -> str:
    text = value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
    return f' {name.rstrip("_").replace("_", "-")}="{_escape(text)}"'


def el(tag: str, *children: str | None, **attributes: str | float | None) -> Markup:
    """Write one element: `class_` as `class`, `aria_label` as `aria-label`, None not at all."""
    head = tag + "".join(_attribute(name, value) for name, value in attributes.items() if value is not None)
    return Markup(f"<{head}/>" if tag in _EMPTY else f"<{head}>{join(*children)}</{tag}>")


_ICONS: Final = {
    "check": "M7 12.5l3.4 3.4L17 9",
    "cross": "M8 8l8 8M16 8l-8 8",
    "differ": "M7.5 10h9M7.5 14h9M14.5 6.5l-5 11",
    "pause": "M9.5 8v8M14.5 8v8",
    "stop": "M9 9h6v6h-6z",
    "dash": "M8 12h8",
    "alert": "M12 7v6M12 16.4v.2",
}


def icon(name: str) -> Markup:
    """Draw a round icon; decoration only, the text beside it says the same."""
    disc = el("circle", cx=12, cy=12, r=11, class_="disc")
    sign = el("path", d=_ICONS[name], class_="sign")
    return el("svg", disc, sign, class_="icon", viewBox="0 0 24 24", aria_hidden="true")


# --- numbers for people ---------------------------------------------------------------------------------


def count(number: float) -> str:
    """`1234567` as `1,234,567`."""
    return f"{round(number):,}"


def plural(number: float, noun: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{count(number)} {noun}" if number == 1 else f"{count(number)} {noun}s"


def size(number: float) -> str:
    """Bytes in decimal units: `1.5 GB`."""
    if number < 1000:
        return f"{number:.0f} B"
    for unit in ("kB", "MB", "GB", "TB"):
        number /= 1000
        if number < 999.95:
            return f"{number:.1f} {unit}"
    return f"{number / 1000:,.1f} PB"


def compact(number: float) -> str:
    """Shorten a number to what an axis has room for: `250k`, `1.5M`."""
    for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.4g}{unit}"
    return f"{number:.4g}"


def duration(seconds: float) -> str:
    """`350 ms`, `4.2 s`, `3 min 05 s`, `2 h 07 min`, `1 d 3 h`."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400:,} d {whole % 86400 // 3600} h"


# --- scales ---------------------------------------------------------------------------------------------


_LEAST: Final = 1e-300  # what is smaller becomes 0 when it is divided


def _nice(rough: float, series: Sequence[float]) -> float:
    """Round `rough` (not negative) up to a member of `series` times a power of ten; the series ends with 10."""
    power = 10.0 ** math.floor(math.log10(max(rough, _LEAST)))
    return next((step * power for step in series if step * power >= rough * (1 - 1e-9)), 10 * power)


def _ticks(low: float, high: float, about: int) -> list[float]:
    step = _nice((high - low) / about, (1, 2, 5, 10))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


class _Axis(NamedTuple):
    """A time axis from `low` to `high` seconds over the pixels `left` to `right`."""

    low: float
    high: float
    left: float
    right: float

    def x(self, seconds: float) -> float:
        return self.left + (seconds - self.low) / (self.high - self.low) * (self.right - self.left)

    def draw(self, top: float, bottom: float) -> Markup:
        """Grid lines, tick labels and the unit, which follows from the span."""
        span = self.high - self.low
        unit, per = ("s", 1) if span <= 180 else ("min", 60) if span <= 3 * 3600 else ("h", 3600)
        marks = _ticks(
            self.low / per,
            self.high / per,
            max(3, int((self.right - self.left) / (90 if self.right > 600 else 50))),
        )
        parts: list[Markup] = []
        for mark in marks:
            x = self.x(mark * per)
            parts.append(el("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid"))
            parts.append(_label(x, bottom + 18, f"{mark:.10g}", "middle"))
        parts.append(_label(self.right, bottom + 36, f"time since the run's start ({unit})", "end"))
        return join(*parts)


def _label(x: float, y: float, text: str, anchor: str = "start", kind: str = "label") -> Markup:
    return el("text", text, x=x, y=y, text_anchor=anchor, class_=kind)


def _figure(draw: Callable[[int], Markup]) -> Markup:
    """Draw twice, for wide and narrow screens: one drawing scaled down to a phone cannot be read."""
    return el("div", el("div", draw(1040), class_="wide"), el("div", draw(400), class_="narrow"))


def _svg(width: float, height: float, title: str, *children: Markup) -> Markup:
    return el(
        "svg", *children, class_="chart", viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=title
    )


# --- throughput -----------------------------------------------------------------------------------------

_FEWEST: Final = 4  # fewer samples make fewer than three steps, which is a picture of nothing
_SHORTEST: Final = 0.05  # seconds; below this the differences are the clock's
_MOST_WINDOWS: Final = 60


class Sample(NamedTuple):
    """Totals observed at one moment, in seconds since the run's start. Finite and not negative."""

    seconds: float
    rows: float
    bytes: float


@dataclass(frozen=True, slots=True)
class Window:
    """Mean rates, per second, from `start` to `end`."""

    start: float
    end: float
    rows: float
    bytes: float


def _rising(samples: Iterable[Sample]) -> list[Sample]:
    """In order of time, one per moment, totals that never fall: after a retry a counter may start again."""
    result: list[Sample] = []
    seen = Sample(0, 0, 0)
    for sample in sorted(samples):
        if not result:
            result.append(sample)
        else:
            rows = result[-1].rows + max(0.0, sample.rows - seen.rows)
            grown = Sample(sample.seconds, rows, result[-1].bytes + max(0.0, sample.bytes - seen.bytes))
            if sample.seconds == result[-1].seconds:
                result[-1] = grown
            else:
                result.append(grown)
        seen = sample
    return result


def average(samples: Iterable[Sample]) -> Window | None:
    """Return the mean rate over all samples, or None where they do not span enough time to have one."""
    rising = _rising(samples)
    if not rising or rising[-1].seconds - rising[0].seconds < _SHORTEST:
        return None
    return _window(rising[0], rising[-1])


def _window(one: Sample, two: Sample) -> Window:
    span = two.seconds - one.seconds
    rows, size_ = (two.rows - one.rows) / span, (two.bytes - one.bytes) / span
    return Window(one.seconds, two.seconds, rows, size_)


def windows(samples: Iterable[Sample]) -> list[Window]:
    """Mean rates in equal windows of a round length; empty where there are too few samples to tell.

    Windows and not the differences of neighbouring samples: two chunks that commit in the same millisecond
    would make a spike of millions of rows per second. The last window is 0.5 to 1.5 times as long.
    """
    rising = _rising(samples)
    if len(rising) < _FEWEST or rising[-1].seconds - rising[0].seconds < _SHORTEST:
        return []
    first, span = rising[0].seconds, rising[-1].seconds - rising[0].seconds
    length = _nice(span / min(_MOST_WINDOWS, len(rising) - 1), (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10))
    edges = [_at(rising, first + index * length) for index in range(max(1, round(span / length)))]
    edges.append(rising[-1])
    return [_window(one, two) for one, two in pairwise(edges)]


def _at(rising: Sequence[Sample], seconds: float) -> Sample:
    """Interpolate the totals at a moment between two samples, on a straight line."""
    index = min(bisect_right(rising, seconds, key=lambda sample: sample.seconds), len(rising) - 1)
    one, two = rising[index - 1], rising[index]
    share = (seconds - one.seconds) / (two.seconds - one.seconds)
    rows, size_ = one.rows + share * (two.rows - one.rows), one.bytes + share * (two.bytes - one.bytes)
    return Sample(seconds, rows, size_)


def rate_chart(steps: Sequence[Window], mean: float) -> Markup:
    """Rows per second over time as a stepped area with the mean as a dashed line. `steps` is not empty."""
    return _figure(lambda width: _rate_svg(steps, mean, width))


def _rate_svg(steps: Sequence[Window], mean: float, width: int) -> Markup:
    left, top, bottom = 56.0, 34.0, 230.0
    axis = _Axis(steps[0].start, steps[-1].end, left, width - 14.0)
    peak = max(step.rows for step in steps)
    scale = _ticks(0, peak, 5) if peak > 0 else [0.0, 1.0]
    if scale[-1] < peak:
        scale.append(scale[-1] + scale[1])

    def y(rows: float) -> float:
        return bottom - rows / scale[-1] * (bottom - top)

    parts = [axis.draw(top, bottom), _label(left, top - 16, "rows/s", "end", "label unit")]
    for mark in scale:
        parts.append(el("line", x1=left, x2=axis.right, y1=y(mark), y2=y(mark), class_="grid"))
        parts.append(_label(left - 8, y(mark) + 4, compact(mark), "end"))
    outline = " ".join(f"V{y(step.rows):.1f} H{axis.x(step.end):.1f}" for step in steps)
    parts.append(el("path", d=f"M{left:.1f} {bottom:.1f} {outline} V{bottom:.1f} Z", class_="area"))
    start = f"M{left:.1f} {y(steps[0].rows):.1f} "
    parts.append(el("path", d=start + outline.split(" ", 1)[1], class_="curve"))
    parts.append(el("line", x1=left, x2=axis.right, y1=y(mean), y2=y(mean), class_="mean"))
    parts.append(
        _label(axis.right, top - 16, f"{DASH} {DASH} mean {count(mean)} rows/s", "end", "label strong")
    )
    parts.extend(_hover(axis, step, top, bottom) for step in steps)
    title = f"Rows per second over time: mean {count(mean)}, highest {count(peak)}"
    return _svg(width, bottom + 44, title, *parts)


def _hover(axis: _Axis, step: Window, top: float, bottom: float) -> Markup:
    text = f"{step.start:.6g}{DASH}{step.end:.6g} s: {count(step.rows)} rows/s, {size(step.bytes)}/s"
    x, right = axis.x(step.start), axis.x(step.end)
    area = el("rect", x=x, y=top, width=right - x, height=bottom - top, class_="hit")
    return el("g", el("title", text), area)


# --- timeline -------------------------------------------------------------------------------------------


class Bar(NamedTuple):
    """One stretch of work; `start` and `seconds` are finite and not negative, `seconds` None if unknown."""

    label: str
    start: float
    seconds: float | None
    again: bool = False


def bar_chart(bars: Sequence[Bar]) -> Markup:
    """Stretches of work under each other on one time axis, each with its duration. `bars` is not empty."""
    return _figure(lambda width: _bar_svg(bars, width))


def _bar_svg(bars: Sequence[Bar], width: int) -> Markup:
    top, row = 6.0, 28.0
    left, right, bottom = (128.0 if width > 600 else 104.0), width - 84.0, top + row * len(bars)
    axis = _Axis(0, max((bar.start + (bar.seconds or 0) for bar in bars), default=0) or 1, left, right)
    parts = [axis.draw(top, bottom)]
    for index, bar in enumerate(bars):
        y = top + row * index
        known = DASH if bar.seconds is None else duration(bar.seconds)
        wide = max(2.0, axis.x(bar.start + (bar.seconds or 0)) - axis.x(bar.start))
        kind = "bar again" if bar.again else "bar"
        x = min(axis.x(bar.start), right - 2)
        shape = el("rect", x=x, y=y + 5, width=wide, height=row - 10, rx=3, class_=kind)
        tip = el("title", f"{bar.label}: from {duration(bar.start)}, {known}")
        parts.append(_label(left - 12, y + 18, bar.label, "end", "label strong"))
        parts.append(_label(width - 2.0, y + 18, known, "end", "label value"))
        parts.append(el("g", tip, shape))
    title = "Phases over time: " + ", ".join(bar.label for bar in bars)
    return _svg(width, bottom + 44, title, *parts)


# --- the style sheet --------------------------------------------------------------------------------------

STYLE: Final = """
:root{color-scheme:light dark;--bg:#f4f5f8;--card:#fff;--ink:#161a20;--soft:#596273;--line:#e1e5eb;
 --accent:#2f66d8;--fill:#2f66d826;--good:#12713a;--good-bg:#e9f8ef;--bad:#b3201a;--bad-bg:#fdeeec;
 --warn:#955006;--warn-bg:#fdf4e1;--idle:#4b5566;--idle-bg:#eef0f4}
@media screen and (prefers-color-scheme:dark){:root{--bg:#0e1116;--card:#171b22;--ink:#e8ebf0;--soft:#9aa4b4;
 --line:#2a313c;--accent:#7aa9ff;--fill:#7aa9ff2e;--good:#5fd48c;--good-bg:#12291c;--bad:#ff8f85;
 --bad-bg:#361917;--warn:#f5b64c;--warn-bg:#30230d;--idle:#a9b3c2;--idle-bg:#20262f}}
*{box-sizing:border-box}
body{margin:0 auto;padding:2rem 1.25rem 3rem;max-width:1160px;background:var(--bg);color:var(--ink);
 font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif;overflow-wrap:anywhere}
h1,h2,p,dl,dd{margin:0}
code{font:.87em ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.brow,.tiles .label,.facts dt,thead th{font-size:.76rem;font-weight:600;color:var(--soft)}
h1{font-size:1.9rem;line-height:1.2;letter-spacing:-.02em}
.run,small,.note,.to,.both{color:var(--soft);font-size:.82rem;font-weight:400}
h2{font-size:1.08rem;margin-bottom:.9rem;letter-spacing:-.01em}
h2 small{margin-left:.6rem}
.card,.verdict,.tiles>div{background:var(--card);border:1px solid var(--line);border-radius:12px}
.card{padding:1.15rem 1.3rem;margin-top:1rem}
.verdict{display:flex;gap:1rem;margin-top:1.2rem;padding:1.3rem;border-left-width:6px}
.verdict>div{min-width:0;flex:1}
.verdict .icon{flex:none;width:2.6rem;height:2.6rem}
.headline{font-size:1.4rem;font-weight:650;line-height:1.3;padding-top:.28rem;letter-spacing:-.01em}
.verdict dl{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1rem;margin-top:.8rem}
.verdict dt{font-weight:600;color:var(--soft)}
.verdict code{background:var(--card);border:1px solid var(--line);border-radius:5px;padding:.1rem .4rem}
.good{--tone:var(--good);--wash:var(--good-bg)}.bad{--tone:var(--bad);--wash:var(--bad-bg)}
.warn{--tone:var(--warn);--wash:var(--warn-bg)}.idle{--tone:var(--idle);--wash:var(--idle-bg)}
.verdict{background:var(--wash);border-color:var(--tone)}
.disc{fill:var(--tone)}
.sign{fill:none;stroke:var(--card);stroke-width:2.2;stroke-linecap:round;stroke-linejoin:round}
.headline,.state,.ne,td.warn{color:var(--tone)}.ne{--tone:var(--bad);font-weight:700}
.tiles{display:grid;grid-template-columns:repeat(5,1fr);gap:.8rem;margin-top:1rem}
.tiles>div{padding:.85rem 1.05rem;display:flex;flex-direction:column}
.tiles .value{font-size:1.5rem;font-weight:650;letter-spacing:-.02em;line-height:1.35}
.tiles .value,td.n,tfoot td{font-variant-numeric:tabular-nums}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(15rem,100%),1fr));gap:.9rem 1.5rem}
.card>div+.scroll{margin-top:1rem}.card>div+.scroll tbody th{min-width:6rem}
.scroll{overflow-x:auto;margin:0 -1.3rem;padding:0 1.3rem}
table{border-collapse:collapse;width:100%;font-size:.9rem;overflow-wrap:normal}
th,td{padding:.5rem .6rem;text-align:left;white-space:nowrap;vertical-align:top}
th,td{border-top:1px solid var(--line)}
thead th{border-top:0;padding-top:0;vertical-align:bottom}
th:first-child,td:first-child{padding-left:0}
tbody th{font-weight:600;min-width:12rem;max-width:22rem;white-space:normal;overflow-wrap:anywhere}
.to,.both{display:block}
th.n,td.n{text-align:right}
td.warn{font-weight:650}
tfoot th,tfoot td{font-weight:650;border-top:2px solid var(--line)}
.state{display:inline-flex;align-items:center;gap:.35rem;font-weight:600}
.state .icon{width:1.05rem;height:1.05rem;flex:none}
tr.bad.open th,tr.bad.open td,tr.why td{background:var(--wash)}
tr.bad.open th,tr.why td{padding-left:.7rem}
tr.why td{border-top:0;padding-top:0;color:var(--tone);white-space:normal}
.pin{position:sticky;left:.7rem;max-width:min(62rem,calc(100vw - 5rem));overflow-wrap:anywhere}
.reason{white-space:normal;min-width:16rem;overflow-wrap:anywhere}
.empty,footer{color:var(--soft)}
footer{margin-top:1.2rem;font-size:.82rem}
.chart{display:block;width:100%;height:auto;font-size:12.5px}
.narrow{display:none;max-width:520px}
.label,.value{fill:var(--soft)}.strong,text.value{fill:var(--ink);font-weight:600}
.grid{stroke:var(--line)}.area{fill:var(--fill)}.curve{fill:none;stroke:var(--accent);stroke-width:1.8}
.mean{stroke:var(--ink);stroke-dasharray:5 4;opacity:.65}
.hit{fill:transparent}.hit:hover{fill:var(--fill)}
.bar{fill:var(--accent)}.bar.again{fill:var(--warn)}
@media screen and (max-width:760px){body{padding:1.2rem .75rem 2rem}.wide{display:none}.narrow{display:block}
 .tiles{grid-template-columns:1fr 1fr}.tiles>:last-child{grid-column:1/-1}.card{padding:1rem}
 .facts{grid-template-columns:1fr 1fr}tbody th{min-width:11rem}
 .stacks thead,.stacks td:empty{display:none}.stacks tr{display:flex;flex-wrap:wrap;gap:.1rem .9rem;
 padding:.55rem 0;border-top:1px solid var(--line)}.stacks tbody tr:first-child{border-top:0}
 .stacks td,.stacks th{border:0;padding:0;min-width:0;white-space:normal;overflow-wrap:anywhere}
 .stacks .reason{flex-basis:100%}.stacks td[data-label]::before{content:attr(data-label) " ";color:var(--soft)}
 .scroll{margin:0 -1rem;padding:0 1rem}.verdict{padding:1rem;gap:.75rem}.verdict .icon{width:2rem;height:2rem}
 .headline{font-size:1.15rem;padding-top:.2rem}.verdict dl{grid-template-columns:1fr;gap:0}
 .verdict dd{margin-bottom:.45rem}h1{font-size:1.5rem}}
@media print{@page{margin:12mm}html{font-size:10.5px}
 body{padding:0;max-width:none;font-size:1rem;background:none}
 *{-webkit-print-color-adjust:exact;print-color-adjust:exact}
 .scroll{overflow:visible}tfoot{display:table-row-group}
 th,td{padding:.4rem}thead th{white-space:normal}tbody th{min-width:9rem}
 .verdict,.tiles,tr,.chart{break-inside:avoid}h2{break-after:avoid}}
"""
