"""A contact sheet: what a search found, as one page without scripts or outside parts."""

from __future__ import annotations

import base64
import io
import os
from html import escape
from pathlib import Path
from urllib.parse import quote

from brolly import __version__
from brolly.errors import BrollyError
from brolly.identity.show import clean

SIDE = 480  # pixels of a thumbnail: twice what a column shows, for fine screens
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
STYLE = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1b1f24;--soft:#5b6570;--line:#dfe3e8;--blue:#1f5fbf;
--track:#e8ebef}
@media(prefers-color-scheme:dark){:root{--bg:#0f1216;--card:#181c22;--ink:#e8ebef;--soft:#9aa5b1;--line:#2b323b;
--blue:#79b0ff;--track:#262c34}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:84rem;margin:0 auto;padding:1.6rem 1rem 3rem}
header{display:flex;gap:1rem;align-items:center;margin-bottom:1.2rem}
header img{height:5.5rem;max-width:9rem;object-fit:cover;border-radius:.5rem;border:1px solid var(--line)}
h1{font-size:1.6rem;line-height:1.2;margin:0;overflow-wrap:anywhere}
header p{margin:.25rem 0 0;color:var(--soft);overflow-wrap:anywhere}
ol{list-style:none;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:.9rem}
ol::after{content:"";flex:1000 0 0}
li{flex:var(--r) 0 min(calc(var(--r)*var(--h)),100%);max-width:calc(var(--r)*17rem);--h:10.5rem}
a{display:block;height:100%;color:inherit;text-decoration:none;background:var(--card);border:1px solid var(--line);
border-radius:.6rem;overflow:hidden;transition:transform .12s,border-color .12s}
a:hover{border-color:var(--blue)}
a:focus-visible{outline:3px solid var(--blue);outline-offset:2px}
figure{margin:0}
figure img{aspect-ratio:var(--r);width:100%;object-fit:cover;display:block;background:var(--track)}
figcaption{padding:.5rem .7rem .6rem;font-size:.86rem}
.line{display:flex;gap:.5rem;align-items:baseline}
.rank{color:var(--soft)}.score{margin-left:auto;font-variant-numeric:tabular-nums;font-weight:600}
.name{display:block;color:var(--soft);overflow-wrap:anywhere;margin-top:.1rem}
.bar{height:.28rem;border-radius:.2rem;background:var(--track);margin:.35rem 0;overflow:hidden}
.bar i{display:block;height:100%;background:var(--blue)}
footer{color:var(--soft);font-size:.85rem;margin-top:1.4rem}
@media(prefers-reduced-motion:no-preference){a:hover{transform:translateY(-2px)}}
@media(max-width:34rem){h1{font-size:1.25rem}main{padding:1rem .7rem 2rem}ol{gap:.6rem}
li{--h:7.8rem}}
@media print{body{background:#fff}a{break-inside:avoid}}
"""


def write_sheet(
    target: Path, query: str, asked: Path | None, found: list[tuple[Path, float]], model: str, n_images: int
) -> None:
    """The page; it appears when it is whole. Raises CheckpointError where it cannot be written."""
    from brolly.checkpoint.safetensors import write_whole

    data = page(target, query, asked, found, model, n_images).encode(errors="replace")
    write_whole(target, lambda: [data], len(data))


def page(
    target: Path, query: str, asked: Path | None, found: list[tuple[Path, float]], model: str, n_images: int
) -> str:
    """The document; links to the pictures hold from where it lies."""
    title = escape(clean(query if asked is None else f"like {asked.name}"))
    shown = f'<img src="{thumbnail(asked)[0]}" alt="the picture asked for">' if asked else ""
    plural = "picture" if n_images == 1 else "pictures"
    best = max((score for _, score in found), default=1.0)
    cards = "\n".join(_card(target, rank, path, score, best) for rank, (path, score) in enumerate(found, 1))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head>\n<body><main><header>{shown}<div><h1>{title}</h1>"
        f"<p>the best {len(found):,} of {n_images:,} {plural}, by {escape(clean(model))}</p></div></header>\n"
        f"<ol>\n{cards}\n</ol>\n<footer>brolly {escape(__version__)} · the number is the cosine between query and "
        "picture; it ranks, and is no probability</footer></main></body></html>\n"
    )


def _card(target: Path, rank: int, path: Path, score: float, best: float) -> str:
    name = escape(clean(path.name))
    href = quote(os.path.relpath(path, target.parent).replace(os.sep, "/"), safe="/", errors="surrogateescape")
    share = 100 * max(score, 0.0) / max(best, 1e-6)
    source, ratio = thumbnail(path)
    return (
        f'<li style="--r:{ratio:.3f}"><a href="{escape(href)}"><figure><img src="{source}" alt="{name}">'
        f'<figcaption><span class="line"><span class="rank">{rank}</span><span class="score">{score:.3f}</span></span>'
        f'<div class="bar"><i style="width:{share:.1f}%"></i></div><span class="name">{name}</span></figcaption>'
        "</figure></a></li>"
    )


def thumbnail(path: Path) -> tuple[str, float]:
    """A small JPEG as a data URI, and its width by its height, within what a row can show."""
    from brolly.media.image import open_image

    try:
        picture = open_image(path)
    except BrollyError:
        return "data:,", 1.0  # gone since it was found
    picture.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=82, optimize=True)
    ratio = min(max(picture.width / picture.height, 0.65), 1.9)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode(), ratio
