"""Export the device model of a run: ``python -m qspinn.export run=outputs/... format=packed``."""

if __name__ == "__main__":
    from qspinn.app.outputs import protect_outputs

    protect_outputs()

    from qspinn.app.choose.exporting import main

    main()
