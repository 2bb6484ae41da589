"""What the rules of a spec do to rows: checked and written down for a plan, then applied to batches."""
