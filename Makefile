# Each target sets up .venv on its own; nothing else is needed but Python 3.11 to 3.13 (or uv), make and a package registry.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
STUBS := .typecheck
STORE := $(VENV)/store
TERRA := .venv-terratorch
UV := $(shell command -v uv 2>/dev/null)
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(shell $(p) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $(p))))
ROOMS := $(filter-out rsedge tests,$(patsubst %/__init__.py,%,$(wildcard */__init__.py)))
PYTHON312 ?= $(firstword $(foreach p,python3.12 $(wildcard $(HOME)/.pyenv/versions/3.12.*/bin/python),$(shell $(p) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null && echo $(p))))
RUN_DIR ?= runs/quickstart
RECIPE ?= recipes/quickstart.yaml
PYTEST_ARGS ?=
# Files go to two processes as they come; what a file shares between its tests is made once. A process that dies ends the run:
# started again it waited for ever.
WORKERS ?= -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart=0
# Unset where the surroundings set it: every process of the tests would compile torch and its friends again (14 s each).
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup docs notebook pictures demo test test-slow test-terratorch lint bench bench-peers bench-olive bench-random bench-series bench-int8 bench-replace bench-heads bench-scene bench-scale bench-large-teacher bench-archive on-gpu demo-seeds busy recipes times fuzz soak bench-predict bench-prune bench-degrade fit-public teachers teachers-full clean

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## */\1\t/' | expand -t 14

setup: $(STAMP)  ## install everything into .venv

# The converter for LiteRT runs with this torch (its tests say so), but asks for an older one: without what it asks for. So does
# stac-model, which asks for a newer pip; tests read with it what `rsedge card` writes.
$(STAMP): pyproject.toml setup.py constraints.txt litert-convert.txt tests/data/store.txt
ifneq ($(UV),)
	$(UV) venv --quiet --allow-existing --python 3.11 $(VENV)
	$(UV) pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[all,dev]'
	$(UV) pip install --quiet --python $(BIN)/python --no-deps -c constraints.txt -r litert-convert.txt stac-model
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --target $(STORE) -r tests/data/store.txt
else
	@if [ -z "$(PYTHON)" ]; then echo 'error: needs Python 3.11, 3.12 or 3.13 (or uv) on the PATH' >&2; exit 4; fi
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --upgrade
	@# Python compiles what is imported; compiling all 24,000 files that come with it takes a minute.
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[all,dev]'
	$(BIN)/python -m pip install --quiet --no-compile --no-deps -c constraints.txt -r litert-convert.txt stac-model
	$(BIN)/python -m pip install --quiet --no-compile --upgrade --no-deps --target $(STORE) -r tests/data/store.txt
endif
	@touch $(STAMP)

demo: $(STAMP)  ## the first command: the quickstart recipe, from a teacher to checked bundles and a report
	$(BIN)/rsedge run $(RECIPE) --run-dir $(RUN_DIR)
	@echo "report:  $(RUN_DIR)/report.html"
	@echo "bundles: $(RUN_DIR)/bundles/"

test: $(STAMP)  ## the second command: all tests but the long sweeps
	$(BIN)/python -m pytest -m 'not slow' $(WORKERS) $(PYTEST_ARGS)

test-slow: $(STAMP)  ## the long sweeps too
	$(BIN)/python -m pytest -m 'not full_size' $(WORKERS) $(PYTEST_ARGS)

# Not held by constraints.txt: terratorch asks for a newer torchgeo, which asks for Python 3.12.
test-terratorch:  ## teachers of terratorch, in a Python 3.12 of their own
	@if [ -z "$(PYTHON312)" ]; then echo 'error: needs Python 3.12 on the PATH or among those of pyenv' >&2; exit 4; fi
ifneq ($(UV),)
	$(UV) venv --quiet --allow-existing --python $(PYTHON312) $(TERRA)
	$(UV) pip install --quiet --python $(TERRA)/bin/python -e '.[all,dev,terratorch]'
else
	[ -x $(TERRA)/bin/python ] || $(PYTHON312) -m venv $(TERRA)
	$(TERRA)/bin/python -m pip install --quiet -e '.[all,dev,terratorch]'
endif
	$(TERRA)/bin/python -m pytest tests/models/outside/test_outside_terra.py $(PYTEST_ARGS)

# Types of TensorRT 10's API, for mypy alone: beside the real module they would hide that it is not installed.
$(STUBS): constraints.txt
ifneq ($(UV),)
	$(UV) pip install --quiet --no-deps --target $(STUBS) -c constraints.txt tensorrt-stubs
else
	$(BIN)/python -m pip install --quiet --upgrade --no-deps --target $(STUBS) -c constraints.txt tensorrt-stubs
endif
	@# The generated stubs are no valid Python in five places: an argument called `in`, a default before none.
	sed -i -e 's/ in: list/ in_: list/' -e 's/channel_axis: int)/channel_axis: int = ...)/' $(STUBS)/tensorrt_bindings/tensorrt.pyi
	@touch $(STUBS)

lint: $(STAMP) $(STUBS)  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@# mypy asks no import hook, so it does not see the rooms under rsedge in an editable install; setuptools' strict mode links them, but
	@# only files that are there at installation. So the same files under one package, by links in a folder of their own.
	@tree=$$(mktemp -d) && trap 'rm -rf "$$tree"' EXIT && mkdir "$$tree/rsedge" \
	&& ln -s "$(CURDIR)"/rsedge/* $(foreach r,$(ROOMS),"$(CURDIR)/$(r)") "$$tree/rsedge/" \
	&& cd "$$tree" && MYPYPATH="$(CURDIR)/$(STUBS)" "$(CURDIR)/$(BIN)/mypy" --config-file "$(CURDIR)/pyproject.toml" --cache-dir "$(CURDIR)/.mypy_cache" -p rsedge

bench: $(STAMP)  ## measure what is in benchmarks/
	@for script in benchmarks/*.py; do [ -e "$$script" ] || continue; echo "== $$script"; $(BIN)/python "$$script"; done

TEACHER_TESTS := tests/models tests/export/test_families.py tests/export/test_parts.py tests/compress/test_families.py

teachers: $(STAMP)  ## write docs/teachers.md from the rows and what their tests measure
	rm -f models/tested.json
	RSEDGE_TEACHER_RESULTS=models/tested.json $(BIN)/python -m pytest $(TEACHER_TESTS) --deselect tests/models/test_doc.py
	$(BIN)/python -m rsedge.models.doc docs/teachers.md

teachers-full: $(STAMP)  ## export every teacher at its published size, small ones first: hours, up to 16 GB of memory
	RSEDGE_TEACHER_RESULTS=models/tested-full.json $(BIN)/python -m pytest -m full_size tests/export/test_full_size.py
	$(BIN)/python -m rsedge.models.doc docs/teachers.md

# Hours each; both go on where they stopped. Exit code 3: a row did not pass. JOBS=2: two runs side by side, each on its share of cores.
docs: $(STAMP)  ## the documents as a site -> build/site/index.html; fetches nothing
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/site

notebook: $(STAMP)  ## execute docs/notebooks/tutorial.ipynb, the quickstart recipe in it too: minutes
	$(BIN)/python -m pytest -m slow tests/test_notebook.py

pictures: $(STAMP)  ## pictures of the demo's report -> docs/report*.png; needs `make demo`, playwright and Chromium
	$(BIN)/python benchmarks/pictures.py $(RUN_DIR)/report.html

demo-seeds: $(STAMP)  ## the demo on ten seeds, number formats and capped processors -> docs/reproducibility.md; resumes
	$(BIN)/python benchmarks/verdicts/demo_seeds.py --jobs $(or $(JOBS),1)

busy: $(STAMP)  ## what a busy machine changes in a recipe's decisions -> docs/reproducibility.md
	code=0; $(BIN)/python benchmarks/verdicts/busy.py || code=$$?; $(BIN)/python benchmarks/verdicts/demo_seeds.py --render; exit $$code

recipes: $(STAMP)  ## every ready recipe whose data are here, on three seeds -> docs/recipes.md; resumes
	$(BIN)/python benchmarks/verdicts/ready_recipes.py --jobs $(or $(JOBS),1)

on-gpu: $(STAMP)  ## what a CUDA GPU changes, in less than ten minutes -> docs/gpu.md; skipped where there is none
	$(BIN)/python benchmarks/gpu/on_gpu.py $(ON_GPU)

fuzz: $(STAMP)  ## faults of every kind of tests/faults, for MINUTES=10 -> docs/reliability.md
	$(BIN)/python benchmarks/reliability.py --minutes $(or $(MINUTES),10)

soak: $(STAMP)  ## 1,000 scenes in a row in one process: memory and handles -> docs/reliability.md
	$(BIN)/python benchmarks/many_scenes.py --scenes $(or $(SCENES),1000)

times: $(STAMP)  ## how long make demo and make test take -> README
	$(BIN)/python benchmarks/verdicts/times.py

bench-predict: $(STAMP)  ## errors of predicted latencies -> docs/prediction.md; resumes, wants a quiet machine
	$(BIN)/python benchmarks/prediction/bench.py

# A pure Python wheel of two dependencies that are here; nothing else needs it.
bench-degrade: $(STAMP)  ## where STUDENTS fall further than their teacher under product degradations -> docs/degradations.md
ifneq ($(UV),)
	$(UV) pip install --quiet --python $(BIN)/python --no-deps rspdbench==1.0.0
else
	$(BIN)/python -m pip install --quiet --no-deps rspdbench==1.0.0
endif
	$(BIN)/python benchmarks/views/degrade.py $(or $(JUDGED),recipes/cloud-mask.yaml) $(or $(STUDENTS),runs/cloud-mask/stages/prune/model) $(if $(SCENES),--scenes $(SCENES)) $(if $(SEED),--seed $(SEED))

# All three resume; CASES="quickstart" and SEEDS=1 do a part, MINUTES=10 ends after so many.
bench-peers: $(STAMP)  ## rsedge beside NNCF, Torch-Pruning and Olive: same teacher, data and time -> docs/benchmarks.md; resumes
	$(BIN)/python benchmarks/peers/bench.py $(CASES:%=--case %) --seeds $(or $(SEEDS),3)

# Olive asks for other versions than rsedge's tools: a venv of its own. It imports requests without asking for it.
bench-olive:  ## install Olive for bench-peers, into .venv-olive
	[ -x .venv-olive/bin/python ] || $(PYTHON) -m venv .venv-olive
	.venv-olive/bin/python -m pip install --quiet --no-compile olive-ai onnxruntime requests

bench-random: $(STAMP)  ## networks with random weights: what cuts, exports and runs them, how fast -> docs/benchmarks.md; resumes
	$(BIN)/python benchmarks/peers/random_networks.py

bench-series: $(STAMP)  ## two dozen students of the crop series in unseen zones -> docs/benchmarks.md; resumes
	$(BIN)/python benchmarks/peers/series.py --seeds $(or $(SEEDS),3) --minutes $(or $(MINUTES),600)

# BUNDLES: folders of bundles for this CPU; without any a recipe makes two. Wants a quiet machine and RSEDGE_DATA.
bench-scene: $(STAMP)  ## whole scenes beside a bound and other ways, and their memory -> docs/scenes.md
ifneq ($(UV),)
	$(UV) pip install --quiet --python $(BIN)/python --no-deps tiler==0.6.0
else
	$(BIN)/python -m pip install --quiet --no-deps tiler==0.6.0
endif
	$(BIN)/python benchmarks/scene/bench.py $(BUNDLES)
	$(BIN)/python benchmarks/scene/bench.py $(BUNDLES) --memory
	$(BIN)/python benchmarks/scene/bench.py $(BUNDLES) --seams --edge 4000

bench-scale: $(STAMP)  ## memory of a recipe on scenes of 1, 10 and 100 times the pixels -> docs/scale.md; wants 20 GB of disk
	$(BIN)/python benchmarks/scale/bench.py

bench-large-teacher: $(STAMP)  ## time and memory of a recipe whose teacher has 1.3 billion parameters -> docs/scale.md; wants 20 GB of disk and of memory
	$(BIN)/python benchmarks/scale/teacher.py

# BUNDLE: folder of a bundle for the CPU, such as runs/quickstart/bundles/openvino-cpu-int8.
bench-archive: $(STAMP)  ## scenes an hour of `rsedge archive` with one worker and two, and what a petabyte would take -> docs/scale.md
	$(BIN)/python benchmarks/scale/archive.py $(BUNDLE)

# RUNS: folders of finished runs with the step, such as of benchmarks/replacing/*.yaml; PARTS: tokens, kernels ...
bench-replace: $(STAMP)  ## what replaced activations and merged tokens bring -> docs/replacing.md
	$(BIN)/python benchmarks/replacing/bench.py $(RUNS) $(PARTS:%=--only %)

bench-heads: $(STAMP)  ## one encoder with heads beside whole networks -> docs/probes.md; needs RSEDGE_DATA
	$(BIN)/python benchmarks/heads.py

# RUNS: folders of finished runs; NETWORKS: names such as ResNet-50; WEIGHTS: yes for weights alone (needs RSEDGE_DATA).
bench-int8: $(STAMP)  ## what the steps of INT8 on OpenVINO bring -> docs/quantization.md
	$(BIN)/python benchmarks/quantization/bench.py $(RUNS) $(NETWORKS:%=--network %) $(WEIGHTS:%=--weights)

bench-prune: $(STAMP)  ## speed that cuts realise, what is kept beside Torch-Pruning -> docs/pruning.md; resumes, needs RSEDGE_DATA
	$(BIN)/python benchmarks/pruning/bench.py

fit-public: $(STAMP)  ## refit devices/predict/efficiencies.yaml to the public rows (RSEDGE_FACTS, or beside RSEDGE_DATA)
	$(BIN)/python benchmarks/prediction/fit_public.py

clean:  ## remove what the targets made, runs included
	rm -rf $(VENV) .venv-olive $(STUBS) .mypy_cache .ruff_cache .hypothesis .cache build dist *.egg-info runs
