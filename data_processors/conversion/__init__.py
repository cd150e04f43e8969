"""From a published data set to canonical samples: where rows lie, how cells are read, how conversions survive."""
