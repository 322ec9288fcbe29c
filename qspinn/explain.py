"""Explain one run in the terminal: ``python -m qspinn.explain run=outputs/...``."""

if __name__ == "__main__":
    from qspinn.app.outputs import protect_outputs

    protect_outputs()

    from qspinn.app.show.explain import main

    main()
