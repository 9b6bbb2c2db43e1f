"""`python -m antenna_assets.cli`."""

from antenna_assets.cli import main

if __name__ == "__main__":
    main()
