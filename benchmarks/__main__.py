"""``python -m benchmarks``: every benchmark in turn."""

from benchmarks.training_step import main

if __name__ == "__main__":
    main()
