"""What only a GPU needs: a count of its memory without one."""
