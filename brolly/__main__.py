from brolly.cli import program

raise SystemExit(program())
