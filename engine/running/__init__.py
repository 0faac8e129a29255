"""Running a plan: the scheduler, its executors, and the cells that each worker runs."""
