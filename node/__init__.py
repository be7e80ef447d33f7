"""One process set of a site: wires the floors below, supervises the engines and the workers, decides nothing."""
