"""python -m fuzz: the same as ln-fuzz."""

if __name__ == "__main__":
    # Imported here, because every spawned process imports this module once more.
    from fuzz.cli import main

    main()
