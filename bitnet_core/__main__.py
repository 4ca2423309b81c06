"""``python -m bitnet_core`` is the ``bitnet`` command."""

from bitnet_core.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
