"""Bytes that are hashed or signed: one encoding for each value, and decoders that refuse all other bytes."""
