"""The ledger's contents after a block: members, stake, data sets, the run. Deterministic, integers only."""
