"""Starting a job: which mpirun, with which flags, and watching over it until nothing is left."""
