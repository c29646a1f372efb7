.PHONY: check lint test slow retriever golden
check: lint test

lint:
	ruff check .
	ruff format --check .
	mypy

test:
	pytest -n auto --dist loadfile

# Renews tests/golden.json for the stages whose number in VERSIONS moved; refuses content that moved without it.
golden:
	python tests/golden.py

# Trains the micro retriever anew and puts it where `retriever=ibot_micro` reads it.
retriever:
	python search.py retriever=ibot_micro_train
	mkdir -p sept/assets
	cp store/retriever/ibot_micro_train-*/backbone/model.safetensors sept/assets/ibot_micro.safetensors
	cp store/retriever/ibot_micro_train-*/backbone/README.md sept/assets/ibot_micro.md

slow:
	pytest -m slow
