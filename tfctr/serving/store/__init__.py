"""Folders of versions: each whole or absent, with a manifest, and the policy that chooses among them."""
