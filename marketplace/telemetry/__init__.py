"""What the market tells its operators: logs, metrics and the names of both."""
