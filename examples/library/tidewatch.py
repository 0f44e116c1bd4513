"""tidewatch: reads the gauge at the pier every ten minutes."""


def read(gauge: str) -> float:
    """The water's height in metres. A request is given up after 12 seconds; raises StaleReading where data is old."""
    raise NotImplementedError(gauge)
