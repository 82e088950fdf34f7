"""Data without a centre: content-addressed, replicated, verified on every read, repaired from peers."""
