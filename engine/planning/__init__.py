"""What a spec comes to before anything runs: cells, stage keys, sizes, costs, power, and what is wrong."""
