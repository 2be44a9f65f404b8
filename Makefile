# make demo and make test set up .venv by themselves; make help lists the rest.
PYTHON ?= python3
VENV ?= .venv
# Extra flags for pip, for example --extra-index-url of a CPU-only torch.
PIP_FLAGS ?=
# Where the demo leaves its bag, pictures, video and summary.
OUT ?= out/demo
# For make results: a folder with homography/, image_matching/ and bags/, whom to measure, where the
# pages go, and further flags, for example EVALUATE_FLAGS='--weights-dir PEERS --cache CACHE'.
# PEER_RESULTS: a folder with JSON files of extractors measured before (homography*.json,
# image-matching*.json, replay*.json, speed*.json), whose rows join the tables without being measured
# again. BENCHMARK_FLAGS: for the times of the picture of make results-plot.
DATA ?=
EXTRACTORS ?= md2net,md2net-light,rootsift,sift,upright-sift,upright-rootsift,surf,orb,akaze
EVALUATE_FLAGS ?=
RESULTS ?= out/results
BENCHMARK_FLAGS ?=
PEER_RESULTS ?= out/peer-results
# For make gpu-check: the device, where the results go, and further flags, for example
# GPU_FLAGS='--repetitions 2 --sizes 320x240'.
DEVICE ?= cuda
GPU_OUT ?= out/gpu
GPU_FLAGS ?=
# Flags for pytest, for example PYTEST_FLAGS='-k matching -x'.
PYTEST_FLAGS ?=
# Processes that run the tests; each has a ROS domain of its own. 0: none but pytest itself.
TEST_PROCESSES ?= 2

EXTRAS := ros,bags,demo,train,evaluate,onnx,openvino,test
INPUTS := setup.py setup.cfg pyproject.toml requirements/constraints.txt
STAMP := $(VENV)/.mdnet_ros-installed
# While this lies there, an installation was begun and not finished: start afresh.
BEGUN := $(VENV)/.mdnet_ros-installing
BIN := $(VENV)/bin

# A sourced ROS or another environment must not reach into this one.
unexport PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH LD_LIBRARY_PATH _ROS_WHEELS_BOOTSTRAP_COMPLETE

.DEFAULT_GOAL := help
.PHONY: help demo test lint results results-homography results-image-matching results-replay \
  results-plot gpu-check clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): $(INPUTS)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "make: $(PYTHON) is not Python 3.10 to 3.13: set PYTHON=..." >&2; exit 1; }
	@if [ -e $(BEGUN) ]; then rm -rf $(VENV); fi
	@mkdir -p $(VENV) && touch $(BEGUN)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) \
	  --constraint requirements/constraints.txt --editable '.[$(EXTRAS)]'
	@rm -f $(BEGUN) && touch $(STAMP)

demo: $(STAMP) ## fly a camera through a synthetic scene and track it live over ROS 2
	$(BIN)/mdnet demo --out $(OUT) --json $(OUT)/summary.json

results: results-homography results-image-matching results-replay ## measure DATA with all three protocols into docs/results

results-homography: $(STAMP)
	@test -n "$(DATA)" || { echo "make: set DATA=folder" >&2; exit 1; }
	$(BIN)/mdnet evaluate homography --root $(DATA)/homography --extractors $(EXTRACTORS) \
	  $(EVALUATE_FLAGS) --json $(RESULTS)/homography.json --html $(RESULTS)/homography.html
	$(BIN)/mdnet evaluate merge $(RESULTS)/homography.json \
	  $(wildcard $(PEER_RESULTS)/homography*.json) --json $(RESULTS)/homography-all.json \
	  --html $(RESULTS)/homography-all.html --text docs/results/homography.txt
	$(BIN)/python docs/results_table.py

results-image-matching: $(STAMP)
	@test -n "$(DATA)" || { echo "make: set DATA=folder" >&2; exit 1; }
	$(BIN)/mdnet evaluate image-matching --root $(DATA)/image_matching \
	  --extractors $(EXTRACTORS) $(EVALUATE_FLAGS) --json $(RESULTS)/image-matching.json \
	  --html $(RESULTS)/image-matching.html
	$(BIN)/mdnet evaluate merge $(RESULTS)/image-matching.json \
	  $(wildcard $(PEER_RESULTS)/image-matching*.json) --json $(RESULTS)/image-matching-all.json \
	  --html $(RESULTS)/image-matching-all.html --text docs/results/image-matching.txt

results-replay: $(STAMP)
	@test -n "$(DATA)" || { echo "make: set DATA=folder" >&2; exit 1; }
	$(BIN)/mdnet evaluate replay $(addprefix --bag ,$(wildcard $(DATA)/bags/*)) \
	  --extractors $(EXTRACTORS),klt $(EVALUATE_FLAGS) --json $(RESULTS)/replay.json \
	  --html $(RESULTS)/replay.html
	$(BIN)/mdnet evaluate merge $(RESULTS)/replay.json \
	  $(wildcard $(PEER_RESULTS)/replay*.json) --json $(RESULTS)/replay-all.json \
	  --html $(RESULTS)/replay-all.html --text docs/results/replay.txt

results-plot: $(STAMP)
	$(BIN)/mdnet benchmark --extractors $(EXTRACTORS) --matching 2048 --sets 1 \
	  $(BENCHMARK_FLAGS) --json $(RESULTS)/speed.json
	$(BIN)/mdnet evaluate plot --speed $(RESULTS)/speed.json \
	  $(wildcard $(PEER_RESULTS)/speed*.json) --accuracy $(RESULTS)/homography-all.json \
	  --out docs/images/accuracy-time.png

gpu-check: $(STAMP) ## check, time and profile a GPU (DEVICE=cpu: a dry run)
	$(BIN)/python -m pytest -q -k 'cuda or graph' test/features $(PYTEST_FLAGS)
	$(BIN)/mdnet gpu-check --device $(DEVICE) --out $(GPU_OUT) $(GPU_FLAGS)

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint ## ruff, mypy and all tests
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist worksteal $(PYTEST_FLAGS)

clean: ## remove the environment, build products and caches
	rm -rf $(VENV) build dist install log *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
