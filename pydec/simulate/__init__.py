"""Planning past the machine: what a run of a given size would cost, and thousands of virtual peers."""
