"""Unbroken: what a server of its own process withstands, each a script of a long form; tests/serve/test_soak.py runs
the short ones. `python -m tests.soak.mixed --minutes 30`, `… .floods`, `… .killed`, `… .overload`."""
