"""What tells whether the project runs on a GPU: a device that is pretended on the CPU, and checks for either kind."""
