"""The Kubernetes operator of Winnow."""
