"""How hypothesis runs here: no deadline, since CI machines are shared; the blob of a failure reproduces it."""

from hypothesis import settings

settings.register_profile("jivs", deadline=None, print_blob=True, database=None)
settings.load_profile("jivs")
