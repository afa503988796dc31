"""``python -m genzoo``."""

from genzoo.cli import main

if __name__ == "__main__":
    main()
