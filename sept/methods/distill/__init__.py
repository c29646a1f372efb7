"""Distillation of the retriever."""
