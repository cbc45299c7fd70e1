"""Clients of a server, without TensorFlow."""
