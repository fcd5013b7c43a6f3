"""The tables of the papers as data: columns in their order, rows with their labels. One file a paper."""
