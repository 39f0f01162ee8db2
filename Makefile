# The two commands of a fresh machine: make demo, make test. Both build .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
GPU_STAMP := $(VENV)/.installed-gpu
READY := $(STAMP) $(if $(filter-out 0,$(GPU)),$(GPU_STAMP))

.PHONY: demo test test-series test-rest thorough benchmarks check lab cluster hub int8 export federated docs gallery lock clean

demo: $(READY)  ## with GPU=1 on an NVIDIA GPU
	$(BIN)/python -m xray_helpers demo

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) -j2 $(if $(filter output-sync,$(.FEATURES)),-Otarget) test-series test-rest

test-series: $(STAMP)  ## the series, the browser and the survival tests share a study; the other tests run beside them
	$(BIN)/python -m pytest --durations=15 -m "not thorough" tests/notebooks

test-rest: $(STAMP)
	$(BIN)/python -m pytest --durations=15 -m "not thorough" --ignore=tests/notebooks --ignore=tests/test_benchmarks.py

thorough: $(STAMP)  ## every size of each family of networks: builds, preprocesses, loads
	$(BIN)/python -m pytest -m thorough -n auto

benchmarks: $(STAMP)  ## the quick form of every benchmark
	$(BIN)/python -m pytest tests/test_benchmarks.py

check: $(STAMP)  ## the quick part
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile

lab: $(READY)  ## the series in JupyterLab, on the demo study
	test -f reports/demo/comparison.csv || $(BIN)/python -m xray_helpers demo
	$(BIN)/python -m xray_helpers lab demo $(if $(filter 0,$(shell id -u)),--allow-root)

cluster: $(STAMP)  ## what --on slurm, submitit and tcp://… need
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/cluster.lock

hub: $(STAMP)  ## what hub:PRESET and hub:FOLDER need: KerasHub, without what only texts need
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/hub.txt

int8: $(STAMP)  ## what precision=int8 needs: OpenVINO's NNCF
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/int8.txt

export: $(STAMP)  ## what `export` needs: LiteRT, ONNX and their quantisers
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/export.lock

federated: $(STAMP)  ## what federated training needs: Flower
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/federated.lock

docs: $(STAMP)  ## the site of docs/, in site/
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/docs.lock
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

gallery: $(STAMP)  ## the three studies of the site's gallery
	$(BIN)/python -m xray_helpers demo
	$(BIN)/python -m xray_helpers demo --classes types --models MobileNetV2
	$(BIN)/python -m xray_helpers run --profile demo --name elsewhere --models MobileNetV2
	$(BIN)/python -m xray_helpers external elsewhere --data phantoms:hospital-b
	for study in demo demo-types elsewhere; do $(BIN)/python -m xray_helpers html $$study; done

$(STAMP): requirements.lock requirements.txt pyproject.toml
	$(PYTHON) -c "import sys; sys.exit('Python 3.11 or newer is needed: make PYTHON=python3.11') if sys.version_info < (3, 11) else 0"
	@echo "Installing what is needed into $(VENV), 3.4 GB: some minutes without a word."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $(STAMP)

$(GPU_STAMP): $(STAMP)  ## CUDA's packages for the TensorFlow that is installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "tensorflow[and-cuda]==$(shell sed -n 's/^tensorflow==\([0-9.]*\).*/\1/p' requirements.lock)"
	touch $(GPU_STAMP)

COMPILE := uv pip compile --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url
EXTRAS := cluster docs export federated

lock:  ## pin requirements/dev.txt and the extras, for every platform and Python from 3.11, so that all fit together
	cat requirements.lock requirements/*.lock | sort -u > .all.lock
	$(COMPILE) -o .all.lock requirements/dev.txt $(EXTRAS:%=requirements/%.txt)
	$(COMPILE) -c .all.lock -o requirements.lock requirements/dev.txt
	for extra in $(EXTRAS); do $(COMPILE) -c .all.lock -o requirements/$$extra.lock requirements/$$extra.txt; done
	rm .all.lock

clean:
	rm -rf $(VENV) data/cache
