# One-word tasks: `just check`. Without just, `uvx --from rust-just just check` is the same.

# List the tasks.
default:
    @just --list

# Format the code, and mend what the linter can mend.
fmt:
    uv run ruff check --fix
    uv run ruff format

# Check style and types.
check:
    uv run ruff check
    uv run ruff format --check
    uv run mypy

# Run the tests; options go to pytest: `just test tests/evaluation`.
test *options:
    uv run pytest {{options}}

# Write docs/components.md from the docstrings, and the site to build/site.
docs:
    uv run python tests/tables.py
    uv run --group docs python docs/site/build.py build/site
    uv run python -m pyro_vae.cli.pages

# Time training steps and scores against other libraries, for some ten minutes.
bench:
    uv run --group peers python experiments/benchmarks/steps.py
