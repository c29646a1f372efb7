"""Loss functions: pure, one file a method."""
