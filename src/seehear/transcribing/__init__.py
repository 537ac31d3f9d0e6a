"""Pieces of recordings to transcripts."""
