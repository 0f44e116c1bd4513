"""One file a group of routes: what a dialect says → a verb → what the dialect answers. Each has a `router`."""
