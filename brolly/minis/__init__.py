"""Small models of our own, each beside the recipe that trained it, so that every verb works offline."""
