"""One module per source dialect; each implements `core.ports.Source`."""
