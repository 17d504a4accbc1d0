"""What bundles do with what they are given: one row a work (``table``), one module for how it is done."""
