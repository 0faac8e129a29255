"""What is done: records of stages, manifests of experiments, their history."""
