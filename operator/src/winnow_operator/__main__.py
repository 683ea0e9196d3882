"""`python -m winnow_operator`."""

from winnow_operator.main import main

if __name__ == "__main__":
    main()
