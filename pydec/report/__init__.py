"""What runs looked like, as one page: read a run directory, draw it, lay it out."""
