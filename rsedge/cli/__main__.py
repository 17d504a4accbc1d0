"""``python -m rsedge.cli``."""

from rsedge.start import main

if __name__ == "__main__":
    main()
