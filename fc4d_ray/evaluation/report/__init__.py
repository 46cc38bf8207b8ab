"""What an evaluation leaves: Parquet for machines, tables and a page for people."""
