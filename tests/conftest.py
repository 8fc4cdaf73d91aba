"""Settings of the whole test run."""

import torch

# Tests are many and tiny: two threads per operation only wait for each other, several times slower on a busy machine.
torch.set_num_threads(1)
