"""How a version goes live: comparison with the live one, records, labels, the server's configuration."""
