"""Draws what a command printed as a terminal: `python docs/terminal_picture.py OUT.svg [--seconds-a-line N] COMMAND`"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import textwrap
from html import escape
from pathlib import Path

COLUMNS, WIDTH, HEIGHT, MARGIN = 84, 8.4, 20, 18
SECONDS_A_LINE = 0.55
BUTTONS = ("#ff5f57", "#febc2e", "#28c840")


def picture(command: str, lines: list[str], pace: float) -> str:
    """An SVG whose lines open from left to right, one after another, and then stay."""
    wide, high = COLUMNS * WIDTH + 2 * MARGIN, (len(lines) + 2) * HEIGHT + 2 * MARGIN + 14
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:.0f} {high:.0f}" width="{wide:.0f}" role="img">',
        f"<title>{escape(command)}</title>",
        f'<rect width="{wide:.0f}" height="{high:.0f}" rx="8" fill="#16191f"/>',
        *(f'<circle cx="{20 + 18 * i}" cy="18" r="5.5" fill="{c}"/>' for i, c in enumerate(BUTTONS)),
        '<g font-family="ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace" font-size="14" fill="#d7dae0">',
        f'<text x="{MARGIN}" y="{MARGIN + 34}" xml:space="preserve">'
        f'<tspan fill="#7ee787">$</tspan> {escape(command)}</text>',
    ]
    for i, line in enumerate(lines):
        y = MARGIN + 34 + (i + 1) * HEIGHT
        begin = 0.6 + i * pace
        out.append(
            f'<clipPath id="l{i}"><rect x="0" y="{y - 15}" height="{HEIGHT}" width="{wide:.0f}">'
            f'<animate attributeName="width" from="0" to="{wide:.0f}" begin="0s" dur="{begin + pace:.2f}s" '
            f'keyTimes="0;{begin / (begin + pace):.3f};1" values="0;0;{wide:.0f}"/></rect></clipPath>'
            f'<text x="{MARGIN}" y="{y}" clip-path="url(#l{i})" xml:space="preserve">{escape(line)}</text>'
        )
    return "\n".join([*out, "</g>", "</svg>", ""])


def on_a_terminal(command: list[str]) -> str:
    """What a command prints when it believes that a person reads it."""
    ours, its = pty.openpty()
    out = b""
    with subprocess.Popen(
        command, stdout=its, stdin=its, env=os.environ | {"NO_COLOR": "1", "COLUMNS": str(COLUMNS)}
    ) as process:
        os.close(its)
        while True:
            try:
                out += (part := os.read(ours, 4096))
            except OSError:  # the program has closed its side
                break
            if not part:
                break
    if process.returncode:
        raise SystemExit(f"{command[0]} failed")
    return out.decode().replace("\r\n", "\n")


def main() -> None:
    target, *command = sys.argv[1:]
    pace = SECONDS_A_LINE
    if command[0] == "--seconds-a-line":
        pace, command = float(command[1]), command[2:]
    printed = on_a_terminal(command)
    lines = [
        part
        for line in printed.strip("\n").splitlines()
        for part in (textwrap.wrap(line, COLUMNS) if len(line) > COLUMNS else [line])
    ]
    shown = " ".join(word if " " not in word else f'"{word}"' for word in command)
    Path(target).write_text(picture(shown, lines, pace))


if __name__ == "__main__":
    main()
