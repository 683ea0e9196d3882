"""What stands in for a server while none runs: it holds requests, and its metrics let an autoscaler start one. Without torch."""
