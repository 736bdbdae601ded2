# Every target is one call of Python; without make: `python tools/bootstrap.py TARGET`.
# The first call of any target makes .venv and installs into it. Variables:
#   PYTHON=python3.13   which Python makes .venv        TORCH=default   plain torch, not the CPU build
#   NB=01               which notebook                  NAME=bpe        which benchmark
#   BROWSER=no          print the address only
PYTHON ?= python3
DO = @$(PYTHON) tools/bootstrap.py

.DEFAULT_GOAL := help
.PHONY: help learn test check notebooks edit exercises bench clean

help:
	$(DO) help
learn:
	$(DO) learn
test:
	$(DO) test
check:
	$(DO) check
notebooks:
	$(DO) notebooks $(NB)
edit:
	$(DO) edit $(NB)
exercises:
	$(DO) exercises
bench:
	$(DO) bench $(NAME)
clean:
	$(DO) clean
