"""The local stand-in: its answers, and how it starts and stops."""
