"""jivs_pipeline against its peers and against raw pipes: `make bench` (see `__main__.py`)."""
