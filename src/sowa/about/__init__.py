"""What is here: the machine, what is installed, which weights and data sets, under which licences. Loads no torch."""
