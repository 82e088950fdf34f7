"""Replicas in one process, in simulated time, against faults and lies that a seed draws; no threads.

The replicas are the ones that run over MPI. Everything else is simulated: time, network, disks, crashes, keys
(a keyed hash in place of Ed25519), the application. ``world`` runs it, ``oracles`` judge it.
"""
