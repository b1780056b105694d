"""What the transfer benchmark is made in: inputs, a network of its own, peers, and how a run is measured."""
