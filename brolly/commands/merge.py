"""`brolly merge`: base and adapter as one model in a folder, or a base in 4 bits, or unpacked."""

from __future__ import annotations

import argparse
import sys

from brolly.commands.flags import MODEL
from brolly.errors import OptionError


def flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", help=MODEL)
    command.add_argument("adapter", nargs="?", help="its LoRA, in PEFT's layout: a folder, org/name (default: none)")
    command.add_argument("-o", "--out", metavar="FOLDER", required=True, help="where the model goes")
    command.add_argument("--dtype", help="float32, bfloat16 or float16 (default: the base's own)")
    command.add_argument("--bits", type=int, help="4 packs the blocks as bitsandbytes does (default: whole numbers)")
    command.add_argument(
        "--gguf-lora", action="store_true", help="write no model: the adapter alone, as llama.cpp's --lora reads it"
    )


def run(args: argparse.Namespace) -> int | None:
    if args.gguf_lora:
        if args.adapter is None:
            raise OptionError("--gguf-lora writes an adapter, and none is named.")
        from brolly.train.tuning.gguf import write_gguf

        print(write_gguf(args.model, args.adapter, out=args.out))
        return 0
    from brolly.train.tuning.merge import merge, rounding

    folder = merge(args.model, args.adapter, out=args.out, dtype=args.dtype, bits=args.bits)
    if args.adapter and (note := rounding(folder, args.adapter)):
        print(note, file=sys.stderr)
    print(folder)
    return 0
