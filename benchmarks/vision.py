"""Eyes and text embedders on this CPU: brolly beside transformers and sentence-transformers, bfloat16, in one run.

python benchmarks/vision.py [--case "CLIP B/32" --case MiniLM-L6] [--rounds 5] [--json]

Weights are random and in the published shapes; nothing here depends on their values. "Network" is pixels that are ready
to vectors; "files" is JPEG files (640 × 480) to vectors through each side's own reader; "texts" is 128 texts of 5 to
240 tokens through `Model.embed` and `SentenceTransformer.encode`, both as they come. Each side lives in a process
of its own, and they are asked in turn; a ratio is the median over the rounds of one side's time by the other's.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.common import Worker, arguments, matmul_flops, median, seconds, serve, show, table

SIDES = ("brolly", "peer")
N_FILES, N_TEXTS = 64, 128


def clip(folder: Path) -> None:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    CLIPModel(CLIPConfig()).save_pretrained(folder)  # the defaults are ViT-B/32's
    CLIPImageProcessor().save_pretrained(folder)


def siglip(folder: Path) -> None:
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    SiglipModel(SiglipConfig()).save_pretrained(folder)
    SiglipImageProcessor(size={"height": 224, "width": 224}).save_pretrained(folder)


def dinov2(folder: Path) -> None:
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    Dinov2Model(Dinov2Config(image_size=518)).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}).save_pretrained(folder)


def bert(n_layers: int, dim: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.models import Pooling, Transformer
        from transformers import BertConfig, BertModel, BertTokenizerFast

        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        plain = folder / "plain"
        plain.mkdir()
        (plain / "vocab.txt").write_text("\n".join(special + [f"w{i}" for i in range(30522 - len(special))]))
        BertTokenizerFast(str(plain / "vocab.txt"), model_max_length=512).save_pretrained(plain)
        config = BertConfig(
            hidden_size=dim, num_hidden_layers=n_layers, num_attention_heads=12, intermediate_size=4 * dim
        )
        BertModel(config, add_pooling_layer=False).save_pretrained(plain)
        reader = Transformer(str(plain))
        SentenceTransformer(modules=[reader, Pooling(dim, pooling_mode="mean")]).save(str(folder))

    return make


# What is made, tokens a picture, and the shape that its work is counted from: layers, dim, patch values.
CASES: dict[str, tuple[Callable[[Path], None], int, tuple[int, int, int]]] = {
    "CLIP B/32": (clip, 50, (12, 768, 3072)),
    "SigLIP B/16": (siglip, 196, (12, 768, 768)),
    "DINOv2 B/14": (dinov2, 257, (12, 768, 588)),
    "MiniLM-L6": (bert(6, 384), 0, (6, 384, 0)),
    "BERT base": (bert(12, 768), 0, (12, 768, 0)),
}


def flops(lengths: list[int], shape: tuple[int, int, int]) -> int:
    """Of the blocks and the patches alone: heads and pooling are little."""
    n_layers, dim, patch = shape
    return sum(n_layers * (24 * n * dim**2 + 4 * n**2 * dim) + 2 * n * patch * dim for n in lengths)


def texts() -> list[str]:
    draw = random.Random(0)
    return [" ".join(f"w{draw.randrange(30000)}" for _ in range(n)) for n in text_lengths()]


def text_lengths() -> list[int]:
    """Words; tokens are two more. Most texts are short, some are not, as in any pile of them."""
    draw = random.Random(1)
    return [int(3 + 235 * draw.random() ** 3) for _ in range(N_TEXTS)]


def pictures(folder: Path) -> None:
    """JPEG files with something to decode in them."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    for i in range(N_FILES):
        small = draw.integers(0, 256, (60, 80, 3), np.uint8)
        Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC).save(folder / f"{i:03}.jpg", quality=90)


class Brolly:
    def __init__(self, folder: Path) -> None:
        import brolly

        self.model: Any = brolly.load(folder, dtype="bfloat16")

    def images(self, pixels: Any) -> None:
        import torch

        with torch.inference_mode():
            self.model.network.images(pixels)

    def files(self, paths: list[Path]) -> None:
        self.model.embed(paths)

    def texts(self, texts: list[str]) -> None:
        self.model.embed(texts)

    def describe(self) -> str:
        return str(self.model.describe())


class Peer:
    def __init__(self, folder: Path) -> None:
        import torch
        import transformers

        transformers.utils.logging.disable_progress_bar()
        self.torch = torch
        if (folder / "modules.json").exists():
            from sentence_transformers import SentenceTransformer

            self.model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.bfloat16})
            return
        self.model = transformers.AutoModel.from_pretrained(folder, dtype=torch.bfloat16).eval()
        self.see = getattr(self.model, "get_image_features", self.model)
        self.processor = transformers.AutoImageProcessor.from_pretrained(folder)

    def images(self, pixels: Any) -> None:
        with self.torch.inference_mode():
            self.see(pixel_values=pixels)

    def files(self, paths: list[Path]) -> None:
        from PIL import Image

        for start in range(0, len(paths), 32):
            opened = [Image.open(path).convert("RGB") for path in paths[start : start + 32]]
            given = self.processor(images=opened, return_tensors="pt")
            self.images(given["pixel_values"].to(self.torch.bfloat16))

    def texts(self, texts: list[str]) -> None:
        self.model.encode(texts, show_progress_bar=False)

    def describe(self) -> str:
        import sentence_transformers
        import transformers

        if type(self.model).__module__.startswith("sentence_transformers"):
            return f"sentence-transformers {sentence_transformers.__version__}"
        return f"transformers {transformers.__version__}, attention: {self.model.config._attn_implementation}"


def work(side: str, folder: str) -> None:
    import torch

    torch.manual_seed(0)
    it: Any = (Brolly if side == "brolly" else Peer)(Path(folder))
    paths = sorted(Path(folder, "pictures").glob("*.jpg"))

    def answer(question: dict[str, Any]) -> Any:
        match question["do"]:
            case "network":
                pixels = torch.randn(question["batch"], 3, 224, 224, dtype=torch.bfloat16)
                return seconds(lambda: it.images(pixels))
            case "files":
                return seconds(lambda: it.files(paths))
            case "texts":
                return seconds(lambda: it.texts(texts()))
            case "describe":
                return it.describe()
            case "limit":
                return matmul_flops()
            case other:
                raise ValueError(other)

    serve(answer)


def measure(name: str, rounds: int, folder: Path) -> dict[str, Any]:
    import torch

    make, n_tokens, shape = CASES[name]
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    make(folder)
    torch.set_default_dtype(torch.float32)
    tasks: dict[str, dict[str, Any]] = {"texts": {"do": "texts", "n": N_TEXTS}}
    if n_tokens:
        (folder / "pictures").mkdir()
        pictures(folder / "pictures")
        tasks = {f"network, batch {n}": {"do": "network", "batch": n, "n": n} for n in (1, 32)}
        tasks["files"] = {"do": "files", "n": N_FILES}
    workers = {side: Worker(__file__, side, str(folder)) for side in SIDES}
    found: dict[str, dict[str, list[float]]] = {task: {side: [] for side in SIDES} for task in tasks}
    limits = []
    for i in range(rounds + 1):  # the first round warms
        limits.append(workers["brolly"].ask(do="limit"))
        for task, question in tasks.items():
            for side in SIDES:
                took = workers[side].ask(**question)
                found[task][side] += [took] if i else []
    notes = {side: workers[side].ask(do="describe") for side in SIDES}
    for worker in workers.values():
        worker.close()
    lengths = [n + 2 for n in text_lengths()]
    counts = {t: flops([n_tokens] * q["n"] if n_tokens else lengths, shape) for t, q in tasks.items()}
    sizes = {task: question["n"] for task, question in tasks.items()}
    return dict(case=name, found=found, sizes=sizes, flops=counts, limit=max(limits), notes=notes)


def report(result: dict[str, Any]) -> str:
    rows = [["", "brolly", "peer", "ratio", "share of the limit"]]
    for task, sides in result["found"].items():
        ours, theirs = (result["sizes"][task] / median(sides[side]) for side in SIDES)
        ratio = median([b / a for a, b in zip(*(sides[side] for side in SIDES), strict=True)])
        share = result["flops"][task] / median(sides["brolly"]) / result["limit"]
        rows.append([task, f"{ours:.1f}/s", f"{theirs:.1f}/s", f"{ratio:.2f}×", f"{share:.0%} of FLOP/s"])
    lines = [f"### {result['case']}, bfloat16", "", table(rows), ""]
    lines.append(f"Limit in this run: bfloat16 {result['limit'] / 1e12:.2f} TFLOP/s (4096³).")
    lines += [f"{side}: {note}." for side, note in result["notes"].items()]
    return "\n".join(lines)


def main() -> None:
    parser = arguments(__doc__, "--case", CASES)
    given = parser.parse_args()
    packages = ("torch", "transformers", "sentence-transformers")
    way = (lambda case, folder: measure(case, given.rounds, folder), report)
    show(given.case or CASES, given.json, packages, way)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:])
    else:
        main()
