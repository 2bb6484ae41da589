"""Draws the results: `plot.py DATA.json OUT.svg`, with the matplotlib of the benchmark's own environment."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "jivs"  # the same file for the same numbers

import matplotlib.pyplot as plt  # noqa: E402 - after the backend is chosen

OURS, THEIRS = "#1f6f8b", "#b8c4cc"


def main(data: Path, out: Path) -> None:
    """One panel per scenario, fastest on top."""
    panels = [panel for panel in json.loads(data.read_text()) if panel["bars"]]
    heights = [len(panel["bars"]) + 1.5 for panel in panels]
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(8, 0.32 * sum(heights)), height_ratios=heights, squeeze=False
    )
    for axis, panel in zip(axes[:, 0], panels, strict=True):
        bars = sorted(panel["bars"].items(), key=lambda bar: -bar[1])
        names, seconds = [b[0] for b in bars], [b[1] for b in bars]
        drawn = axis.barh(names, seconds, color=[OURS if n.startswith("jivs") else THEIRS for n in names])
        axis.bar_label(drawn, fmt=" %.1f s", fontsize=8)
        axis.set_title(panel["title"], fontsize=9, loc="left")
        axis.tick_params(labelsize=8)
        axis.xaxis.set_visible(False)
        for side in ("top", "right", "bottom"):
            axis.spines[side].set_visible(False)
        axis.margins(x=0.1)
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
