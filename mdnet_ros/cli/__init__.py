"""The ``mdnet`` command: one module per subcommand."""
