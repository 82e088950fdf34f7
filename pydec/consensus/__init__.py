"""The ledger: Byzantine-fault-tolerant agreement on members, data and checkpoints; no MPI, no torch."""
