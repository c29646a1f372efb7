.PHONY: check lint test slow
check: lint test

lint:
	ruff check .
	ruff format --check .
	mypy

test:
	pytest

slow:
	pytest -m slow
