"""Several whole sites in one process: engines, links, control plane, processes, tables, clients, faults, checkers."""
