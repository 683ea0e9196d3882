"""Serve a checkpoint over HTTP."""
