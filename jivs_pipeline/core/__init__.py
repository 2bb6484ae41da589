"""Pure values and policies: no I/O, no clock, no environment."""
