"""Moving bytes between peers: the ``Transport`` contract, MPI, an in-process cluster, frames, stopping.

Each module is imported by its own name; importing this package loads nothing.
"""
