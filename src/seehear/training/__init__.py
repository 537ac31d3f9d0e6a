"""How it is optimised: the loop, its rate, its checkpoints; of the method it sees only `objective(batch, step)`."""
