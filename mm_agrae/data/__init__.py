"""Data on disk: the canonical data set, images, and the order in which samples are drawn."""
