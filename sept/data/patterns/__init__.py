from sept.data.patterns.domains import DOMAINS, TARGETS, classes, draw

__all__ = ["DOMAINS", "TARGETS", "classes", "draw"]
