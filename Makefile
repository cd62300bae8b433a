# The two commands: `make test` and `make demo`. What can wait until cargo exists is in xtask.
#
# Run them as root, or as a user who may use sudo. `sudo make …` goes back to the user who owns the
# checkout, so that no file of root is left in it.

ARGS ?=
RUST_NEEDED := 1.95
OWNER := $(shell stat -c %U . 2>/dev/null)
export PATH := $(HOME)/.cargo/bin:$(PATH):/usr/local/sbin:/usr/sbin:/sbin

# The pinned toolchain, where it is installed under its channel's name only: no second download.
PINNED := $(shell sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
ifeq ($(shell rustup toolchain list 2>/dev/null | grep -c '^$(PINNED)-'),0)
ifeq ($(shell rustup run stable rustc --version 2>/dev/null | cut -d' ' -f2),$(PINNED))
export RUSTUP_TOOLCHAIN := stable
endif
endif

ifeq ($(shell id -u):$(filter-out root,$(SUDO_USER)),0:$(OWNER))
AS_OWNER := sudo --user $(OWNER) --set-home --
endif

.PHONY: help test demo setup doctor tidy bench
help:
	@echo 'make test              install what is missing, build and run all tests'
	@echo 'make demo [ARGS=…]     the same for the demo, for instance ARGS="--seed 7"'
	@echo 'make setup             only install what is missing'
	@echo 'make doctor            only say what is missing; changes nothing'
	@echo 'make tidy              check the house rules'
	@echo 'make bench [ARGS=…]    run the benchmarks'

ifdef AS_OWNER
test demo setup doctor tidy bench:
	@$(AS_OWNER) $(MAKE) --no-print-directory $@ ARGS='$(ARGS)'
else
test: .rust
	@cargo xtask setup
	@cargo xtask ci

demo: .rust
	@cargo xtask demo -- $(ARGS)

setup doctor tidy: .rust
	@cargo xtask $@

bench: .rust
	@cargo xtask setup
	@cargo xtask bench $(ARGS)
endif

# xtask itself needs no more than a Rust toolchain and a C linker.
.PHONY: .rust
.rust:
	@command -v cargo >/dev/null && command -v rustc >/dev/null || { \
	  echo 'Rust is missing. Get it (any user, no root needed) and start again:' >&2; \
	  echo "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y" >&2; \
	  echo '  . "$$HOME/.cargo/env"' >&2; \
	  exit 1; }
	@have=$$(rustc --version | cut -d' ' -f2); \
	[ -n "$$have" ] || exit 1; \
	  [ "$$(printf '%s\n' $(RUST_NEEDED) "$$have" | sort -V | head -n 1)" = $(RUST_NEEDED) ] || { \
	  echo "Rust $(RUST_NEEDED) or newer is needed, this is $$have. Get it with:" >&2; \
	  echo '  rustup toolchain install    (rustup: https://rustup.rs)' >&2; \
	  exit 1; }
	@command -v cc >/dev/null || { \
	  echo 'A C compiler is missing. As root: apt-get install gcc libc6-dev' >&2; \
	  exit 1; }
