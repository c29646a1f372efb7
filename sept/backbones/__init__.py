"""Networks by timm name."""
