"""Builders: each one pure function from a typed spec to a complete Kubernetes object."""
