"""`brolly merge`: base and adapter as one model in a folder."""

from __future__ import annotations

import argparse
import sys

from brolly.commands.flags import MODEL


def flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", help=MODEL)
    command.add_argument("adapter", help="its LoRA, in PEFT's layout: a folder, org/name")
    command.add_argument("-o", "--out", metavar="FOLDER", required=True, help="where the model goes")
    command.add_argument("--dtype", help="float32, bfloat16 or float16 (default: the base's own)")
    command.add_argument(
        "--gguf-lora", action="store_true", help="write no model: the adapter alone, as llama.cpp's --lora reads it"
    )


def run(args: argparse.Namespace) -> int | None:
    if args.gguf_lora:
        from brolly.train.tuning.gguf import write_gguf

        print(write_gguf(args.model, args.adapter, out=args.out))
        return 0
    from brolly.train.tuning.merge import merge, rounding

    folder = merge(args.model, args.adapter, out=args.out, dtype=args.dtype)
    if note := rounding(folder):
        print(note, file=sys.stderr)
    print(folder)
    return 0
