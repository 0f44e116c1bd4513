"""Moved to brolly.place."""

from brolly.place import Place as Place
from brolly.place import Store as Store
from brolly.place import Where as Where
