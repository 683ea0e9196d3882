"""A real Kubernetes on one Linux machine, for trying Winnow and for its tests."""
