# Every target first makes .venv where there is none; what is installed already is not installed again.
# Another interpreter: make PYTHON=python3.12 test

PYTHON ?= python3
BIN := .venv/bin
DEMO_SUITES := robustness knn shape_bias foreground reconstruction
DEMO_RUN := --epochs 5 --save-every 5 --draw-every 5

.PHONY: install demo test studies

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v >= (3, 11) else \
		"pixmim-eval needs Python 3.11 or newer, found %d.%d ($(PYTHON)). Use: make PYTHON=python3.12" % v)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	touch $@

# A model this small trains faster in two processes of one thread each than in one process after the other.
demo: export OMP_NUM_THREADS = 1
demo: install  ## two small models pretrained on generated images, compared, and the report on them
	$(BIN)/pixmim-pretrain --recipe mae-64px $(DEMO_RUN) --out runs/demo/mae & mae=$$!; \
	$(BIN)/pixmim-pretrain --recipe pixmim-mae-64px $(DEMO_RUN) --out runs/demo/pixmim-mae && wait $$mae
	for suite in $(DEMO_SUITES); do \
		env -u OMP_NUM_THREADS $(BIN)/pixmim-eval --suite $$suite --checkpoint 'runs/demo/*/epoch-*.safetensors' \
			--out runs/demo/evaluation || exit; \
	done
	$(BIN)/pixmim-analysis report --runs runs/demo/evaluation --out runs/demo/reports

test: export OMP_NUM_THREADS = 1
test: install  ## style, types and every test that is not a study
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 -m "not slow"

studies: install  ## the tests that take minutes
	$(BIN)/pytest -m slow
