"""Trainings of one base model side by side: the rows of all go through it in one forward and backward pass.

Each training keeps a Trainer of its own, with its optimiser, schedule, clipping, log and checkpoints, and a
thread of its own, of which one runs at a time (`turns`). Where a Trainer would let rows go through its model,
it hands them over; once all have done so, they go through `joint_model` as one batch (`joint_passes`), whose
adapters are stacked (`grouped_lora`), and each gets its own loss and gradients back.
"""
