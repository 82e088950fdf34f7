"""Keys, signatures and hashes. Everything that is secret or proves something goes through here."""
