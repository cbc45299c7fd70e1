"""Mutated messages of every call, sent to a server whose memory is limited: each is answered or refused, and none does harm."""
