"""SimMIM."""
