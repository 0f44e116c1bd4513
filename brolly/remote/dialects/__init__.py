"""How each vendor says what brolly means: requests out, pieces in. Pure functions; no connection, no key."""
