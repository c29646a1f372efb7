"""Tests of the project on a GPU: a device simulated on the CPU, and checks for real and simulated devices."""
