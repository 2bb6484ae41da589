"""Adapters that implement the ports: databases, Redis, files, processes."""
