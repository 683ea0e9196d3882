"""`kubectl winnow`: rows judged where they lie, and a cluster's datasets, trainings and deployments as people read them."""
